//! The effective configuration, as `config show` prints it. Nothing secret stands in it yet: keys
//! are files.

use super::{Config, Dkim, Dnssec, KeyPair, Oidc, read::SUITES};
use crate::{
    identity::SecondFactorRule,
    policy::toml_source::{show_duration, show_size},
    portal::Colour,
    seal::Suite,
};
use std::{fmt::Display, path::Path};
use toml::Value;

/// A section's name (empty: the top) and its keys in the order of the manual.
type Shown = (&'static str, Vec<(&'static str, Value)>);

pub(super) fn to_toml(config: &Config) -> String {
    let mut out = String::new();
    for (name, keys) in sections(config) {
        if !name.is_empty() {
            out += &format!("\n[{name}]\n");
        }
        for (key, value) in keys {
            out += &format!("{key} = {value}\n");
        }
    }
    out
}

pub(super) fn to_json(config: &Config) -> serde_json::Value {
    let mut root = serde_json::Map::new();
    for (name, keys) in sections(config) {
        let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), json(value)));
        if name.is_empty() {
            root.extend(keys);
        } else {
            root.insert(name.to_owned(), serde_json::Value::Object(keys.collect()));
        }
    }
    serde_json::Value::Object(root)
}

fn json(value: Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Boolean(is) => is.into(),
        Value::Datetime(at) => at.to_string().into(),
        Value::Array(items) => items.into_iter().map(json).collect(),
        Value::Table(table) => table.into_iter().map(|(key, value)| (key, json(value))).collect(),
    }
}

fn sections(config: &Config) -> Vec<Shown> {
    vec![
        (
            "",
            vec![
                ("hostname", text(&config.hostname)),
                ("data_dir", path(&config.data_dir)),
                ("policy_dir", path(&config.policy_dir)),
            ],
        ),
        ("organization", organization(config)),
        ("smtp", smtp(config)),
        ("inside", vec![("host", text(&config.inside.host)), ("tls", text(config.inside.tls))]),
        ("dns", dns(config)),
        ("delivery", delivery(config)),
        ("notification", notification(config)),
        ("portal", portal(config)),
        (
            "vault",
            vec![
                ("store", text("sled")),
                ("objects", text("")),
                ("keys", text(&config.vault.keys)),
                ("suite", text(suite(config.vault.suite))),
            ],
        ),
        ("metrics", vec![("listen", config.metrics.listen.map_or_else(|| text(""), text))]),
        (
            "log",
            vec![
                ("format", text(if config.log.json { "json" } else { "text" })),
                ("level", text(&config.log.level)),
            ],
        ),
    ]
}

fn organization(config: &Config) -> Vec<(&'static str, Value)> {
    let organization = &config.organization;
    vec![
        ("name", text(&organization.name)),
        ("domains", list(&organization.domains)),
        ("postmaster", text(&organization.postmaster)),
        ("support", text(&organization.support)),
        ("logo", optional(organization.logo.as_deref())),
        ("accent", colour(organization.accent)),
        ("accent_dark", colour(organization.accent_dark)),
    ]
}

fn smtp(config: &Config) -> Vec<(&'static str, Value)> {
    let smtp = &config.smtp;
    let (certificate, key) = key_pair(smtp.tls.as_ref());
    vec![
        ("listen", list(&smtp.listen)),
        ("clients", list(&smtp.clients)),
        ("users", text("")),
        ("certificate", certificate),
        ("key", key),
        ("require_tls", Value::Boolean(smtp.require_tls)),
        ("max_message_size", text(show_size(smtp.max_message_size))),
        ("max_recipients", number(smtp.max_recipients)),
        ("max_connections", number(smtp.limits.connections)),
        ("max_connections_per_client", number(smtp.limits.connections_per_client)),
        ("max_connection_rate", Value::Integer(smtp.limits.connection_rate.into())),
        ("max_message_rate", Value::Integer(smtp.limits.message_rate.into())),
        ("max_recipient_rate", Value::Integer(smtp.limits.recipient_rate.into())),
        ("limit_exceptions", list(&smtp.limit_exceptions)),
        ("max_errors", Value::Integer(smtp.max_errors.into())),
        ("idle_timeout", text(show_duration(smtp.idle_timeout))),
        ("max_session_time", text(show_duration(smtp.max_session_time))),
        ("normalize", list(&smtp.normalize)),
        ("xclient", list::<&str>(&[])),
    ]
}

fn dns(config: &Config) -> Vec<(&'static str, Value)> {
    let dnssec = match config.dns.dnssec {
        Dnssec::Off => "off",
        Dnssec::TrustAd => "trust-ad",
        Dnssec::Validate => "validate",
    };
    vec![
        ("nameservers", list(&config.dns.nameservers)),
        ("dnssec", text(dnssec)),
        ("trust_anchor", optional(config.dns.trust_anchor.as_deref())),
    ]
}

fn delivery(config: &Config) -> Vec<(&'static str, Value)> {
    let delivery = &config.delivery;
    let retry: Vec<String> = delivery.retry.iter().copied().map(show_duration).collect();
    vec![
        ("port", Value::Integer(delivery.port.into())),
        ("trust_anchors", optional(delivery.trust_anchors.as_deref())),
        ("retry", list(&retry)),
        ("give_up", text(show_duration(delivery.give_up))),
        ("warn_after", text(show_duration(delivery.warn_after))),
        ("connections_per_domain", number(delivery.connections_per_domain)),
        ("ipv6", Value::Boolean(delivery.ipv6)),
        ("refuse_networks", list(&delivery.refuse_networks)),
        ("watch", text(show_duration(delivery.watch.unwrap_or_default()))),
        ("tls_reports", Value::Boolean(delivery.tls_reports)),
    ]
}

fn notification(config: &Config) -> Vec<(&'static str, Value)> {
    let notification = &config.notification;
    vec![
        ("from", text(&notification.from)),
        ("subject", text(&notification.subject)),
        ("language", text(&notification.language)),
        ("template", optional(notification.template.as_deref())),
        ("level", text(notification.level)),
        ("note", text(notification.note.as_deref().unwrap_or_default())),
        ("sms", text(notification.sms.as_deref().unwrap_or_default())),
        ("dkim", Value::Array(notification.dkim.iter().map(dkim).collect())),
    ]
}

fn dkim(entry: &Dkim) -> Value {
    let keys = [
        ("domain", text(&entry.domain)),
        ("selector", text(&entry.selector)),
        ("key", path(&entry.key)),
    ];
    Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn portal(config: &Config) -> Vec<(&'static str, Value)> {
    let portal = &config.portal;
    let (certificate, key) = key_pair(portal.tls.as_ref());
    vec![
        ("listen", text(portal.listen)),
        ("url", text(&portal.url)),
        ("certificate", certificate),
        ("key", key),
        ("retention", text(show_duration(portal.retention))),
        ("max_reply_size", text(show_size(portal.max_reply_size))),
        ("trusted_proxies", list(&portal.trusted_proxies)),
        ("max_connections", number(portal.max_connections)),
        ("max_connections_per_client", number(portal.max_connections_per_client)),
        ("min_rate", text(show_size(portal.min_rate))),
        ("refuse_files", list(&portal.refuse_files)),
        ("language", text(&portal.language)),
        ("languages", Value::Array(portal.languages.iter().map(|p| path(p)).collect())),
        ("second_factor", text(second_factor(portal.second_factor))),
        ("code_sign_in", Value::Boolean(portal.code_sign_in)),
        ("terms_url", text(&portal.terms_url)),
        ("privacy_url", text(&portal.privacy_url)),
        ("oidc", Value::Array(portal.oidc.iter().map(oidc).collect())),
    ]
}

fn suite(suite: Suite) -> &'static str {
    SUITES.iter().find(|(_, known)| *known == suite).map_or("", |(name, _)| name)
}

const fn second_factor(rule: SecondFactorRule) -> &'static str {
    match rule {
        SecondFactorRule::Optional => "optional",
        SecondFactorRule::Required => "required",
        SecondFactorRule::Off => "off",
    }
}

fn oidc(entry: &Oidc) -> Value {
    let keys = [
        ("name", text(&entry.name)),
        ("issuer", text(&entry.issuer)),
        ("client_id", text(&entry.client_id)),
        ("client_secret_file", path(&entry.client_secret_file)),
        ("domains", list(&entry.domains)),
    ];
    Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn colour(value: Option<Colour>) -> Value {
    value.map_or_else(|| text(""), text)
}

fn text(value: impl Display) -> Value {
    Value::String(value.to_string())
}

fn list<T: Display>(values: &[T]) -> Value {
    Value::Array(values.iter().map(text).collect())
}

fn number(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Absolute: what is shown means the same wherever it is kept.
fn path(path: &Path) -> Value {
    text(std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display())
}

fn optional(file: Option<&Path>) -> Value {
    file.map_or_else(|| text(""), path)
}

fn key_pair(pair: Option<&KeyPair>) -> (Value, Value) {
    (optional(pair.map(|p| p.certificate.as_path())), optional(pair.map(|p| p.key.as_path())))
}
