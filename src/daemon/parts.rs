//! What start-up reads and opens before anything runs: what can be wrong is found here.

use super::{StartError, keys::RingKeeper, policies::LivePolicies};
use crate::{
    audit::Audit,
    clock::{Clock, ClockGuard},
    config::{self, Config},
    control::{server::DnsReport, view::DnsStatus},
    dns::hickory::{AnchorError, Anchors, Health, HickoryResolver, Validation},
    identity::{Identity, IdentitySettings},
    intake::Door,
    language::{CatalogueFile, ENGLISH, Languages},
    mail::notice::{Letterhead, Templates},
    net::{
        https::{HttpsClient, HttpsSettings},
        texts::TextService,
        tls::TlsServer,
        trust::TrustAnchors,
    },
    oidc::{Provider, ProviderSettings, place_of},
    portal::{Brand, Logo, Portal, PortalSettings},
    seal::KeyRing,
    store::{
        NoteStore, StoreError,
        sled::{Options, SledStore},
    },
    vault::{DkimKey, HISTORY, Insiders, NoticeSettings, Vault, clock_guard},
    wire::Web,
};
use axum_server::tls_rustls::RustlsConfig;
use std::{
    collections::BTreeMap, fmt::Display, fs, io::Read, os::unix::fs::PermissionsExt, path::Path,
    sync::Arc, time::Duration,
};
use zeroize::Zeroizing;

/// Bytes of a DKIM key file that are read; a key of 8192 bits needs less than a tenth.
const LARGEST_KEY: u64 = 64 * 1024;

/// How long a provider of identities may take for an answer.
const SIGN_IN_PATIENCE: Duration = Duration::from_secs(10);

/// What start-up has read and opened before anything runs.
pub(super) struct Parts {
    pub(super) store: Arc<SledStore>,
    pub(super) vault: Vault,
    pub(super) identity: Identity,
    pub(super) audit: Audit,
    pub(super) notes: Arc<dyn NoteStore>,
    pub(super) policies: Arc<LivePolicies>,
    pub(super) resolver: Arc<HickoryResolver>,
    pub(super) web: Arc<dyn Web>,
    pub(super) anchors: TrustAnchors,
    pub(super) smtp_tls: Option<Arc<TlsServer>>,
    pub(super) door: Door,
    pub(super) portal: Portal,
    pub(super) providers: Vec<Arc<Provider>>,
}

impl DnsReport for HickoryResolver {
    fn report(&self) -> DnsStatus {
        let Health { dnssec, working, text } = self.health();
        DnsStatus { dnssec: dnssec.to_owned(), working, text }
    }
}

/// Reads every file that the configuration names, for `config check`: what is wrong, a line each.
/// Opens no vault and no port.
pub fn check(config: &Config) -> Vec<String> {
    let pairs = [config.smtp.tls.as_ref(), config.portal.tls.as_ref()];
    let pairs = pairs.into_iter().flatten().map(|pair| {
        TlsServer::load(&pair.certificate, &pair.key).map(drop).map_err(|e| e.to_string())
    });
    let anchors = TrustAnchors::load(config.delivery.trust_anchors.as_deref());
    let anchors = anchors.map(drop).map_err(|e| e.to_string());
    let texts = texts(config).map(drop).map_err(|e| e.to_string());
    let dnssec = validation(&config.dns).map(drop).map_err(|e| e.to_string());
    let dkim = config.notification.dkim.iter();
    let dkim = dkim.map(|entry| dkim_key(entry).map(drop).map_err(|e| e.to_string()));
    let brand = brand(&config.organization).map(drop).map_err(|e| e.to_string());
    let oidc = config.portal.oidc.iter();
    let oidc = oidc.map(|entry| client_secret(entry).map(drop).map_err(|e| e.to_string()));
    let found = pairs.chain([anchors, dnssec, texts, brand]).chain(dkim).chain(oidc);
    found.filter_map(Result::err).collect()
}

/// DNS as the configuration has it.
pub(super) fn resolver(config: &Config) -> Result<HickoryResolver, StartError> {
    let settled = |e: &dyn Display| StartError::Config(e.to_string());
    let resolver = HickoryResolver::new(&config.dns.nameservers, config.delivery.ipv6)
        .map_err(|e| settled(&e))?;
    Ok(resolver.with_dnssec(validation(&config.dns).map_err(|e| settled(&e))?))
}

/// How answers of DNS are checked, and from which anchors down.
fn validation(dns: &config::Dns) -> Result<Validation, AnchorError> {
    let anchors = Anchors::load(dns.trust_anchor.as_deref())?;
    Ok(match dns.dnssec {
        config::Dnssec::Off => Validation::Off,
        config::Dnssec::TrustAd => Validation::TrustAd,
        config::Dnssec::Validate => Validation::Validate(anchors),
    })
}

/// Everything that can be wrong is read and opened here, the vault last.
pub(super) async fn gather(config: &Config, clock: Arc<dyn Clock>) -> Result<Parts, StartError> {
    let settled = |e: &dyn Display| StartError::Config(e.to_string());
    let dnssec_off = config.dns.dnssec == config::Dnssec::Off;
    let policies = LivePolicies::load(config.policy_dir.clone(), dnssec_off, Arc::clone(&clock))?;
    let policies = Arc::new(policies);
    let resolver = Arc::new(resolver(config)?);
    let anchors = TrustAnchors::load(config.delivery.trust_anchors.as_deref());
    let anchors = anchors.map_err(|e| settled(&e))?;
    let smtp_tls = config.smtp.tls.as_ref();
    let smtp_tls = smtp_tls.map(|pair| TlsServer::load(&pair.certificate, &pair.key));
    let smtp_tls = smtp_tls.transpose().map_err(|e| settled(&e))?.map(Arc::new);
    let dkim: Result<Vec<_>, _> = config.notification.dkim.iter().map(dkim_key).collect();
    let dkim = dkim?;
    let providers = providers(config, &anchors, &resolver, &clock)?;
    // Before the words of all languages are read: the book asks for much memory that it never touches,
    // which costs nothing only while it comes fresh from the system.
    let (store, ring) = open_store(config).await?;
    let Spoken { notices, languages, pages } = texts(config)?;
    let notes: Arc<dyn NoteStore> = Arc::clone(&store) as _;
    let guard = guard(&clock, &store).await?;
    let audit = Audit::new(Arc::clone(&store) as _, Arc::clone(&clock), HISTORY);
    let (queue, bodies, people) = (Arc::clone(&store), Arc::clone(&store), Arc::clone(&store));
    let web = HttpsClient::new(
        HttpsSettings::new(anchors.clone(), config.delivery.refuse_networks.clone()),
        Arc::clone(&resolver) as _,
        Arc::clone(&clock),
    );
    let web: Arc<dyn Web> = Arc::new(web.map_err(|e| settled(&e))?);
    let texts = texts_service(config, &anchors, &resolver, &clock)?;
    let vault = Vault::new(queue, bodies, people, Arc::clone(&notes), ring, guard, notices)
        .sealing(config.vault.suite)
        .signing(dkim)
        .telling(insiders(config))
        .texting(texts);
    let portal = portal_settings(config, languages, pages, &providers)?;
    let door = Door::new(vault.clone(), Arc::clone(&vault.queue), Arc::clone(&policies) as _);
    let identity =
        Identity::new(identity_settings(config), vault.clone(), Arc::clone(&notes), audit.clone());
    let portal = Portal::new(portal, vault.clone(), identity.clone(), door.clone(), audit.clone());
    let portal = portal.map_err(|e| settled(&e))?;
    Ok(Parts {
        store,
        vault,
        audit,
        identity,
        notes,
        policies,
        resolver,
        web,
        anchors,
        smtp_tls,
        door,
        portal,
        providers,
    })
}

fn insiders(config: &Config) -> Insiders {
    let config::Organization { domains, postmaster, .. } = &config.organization;
    Insiders { domains: domains.clone(), postmaster: postmaster.clone() }
}

/// The guard of the clock, by the time that the store keeps.
async fn guard(clock: &Arc<dyn Clock>, store: &SledStore) -> Result<Arc<ClockGuard>, StartError> {
    let failed = |e: StoreError| StartError::TryAgain(e.to_string());
    Ok(Arc::new(clock_guard(Arc::clone(clock), store).await.map_err(failed)?))
}

fn portal_settings(
    config: &Config,
    languages: Arc<Languages>,
    overrides: BTreeMap<String, String>,
    providers: &[Arc<Provider>],
) -> Result<PortalSettings, StartError> {
    Ok(PortalSettings {
        organization: config.organization.name.clone(),
        support: config.organization.support.clone(),
        url: config.portal.url.clone(),
        domains: config.organization.domains.clone(),
        max_reply_size: config.portal.max_reply_size,
        refuse_files: config.portal.refuse_files.clone(),
        trusted_proxies: config.portal.trusted_proxies.clone(),
        min_rate: config.portal.min_rate,
        brand: brand(&config.organization)?,
        languages,
        terms_url: config.portal.terms_url.clone(),
        privacy_url: config.portal.privacy_url.clone(),
        overrides,
        providers: providers.to_vec(),
    })
}

fn identity_settings(config: &Config) -> IdentitySettings {
    IdentitySettings {
        organization: config.organization.name.clone(),
        url: config.portal.url.clone(),
        second_factor: config.portal.second_factor,
        code_sign_in: config.portal.code_sign_in,
    }
}

/// The service that sends text messages (`notification.sms`). The operator names it, so it may lie in
/// any network.
fn texts_service(
    config: &Config,
    anchors: &TrustAnchors,
    resolver: &Arc<HickoryResolver>,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<dyn crate::wire::Texts>>, StartError> {
    let Some(url) = &config.notification.sms else { return Ok(None) };
    let wrong = || StartError::Config(format!("notification.sms: `{url}` can't be used"));
    if let Some(rest) = url.strip_prefix("http://") {
        let place = place_of(&format!("https://{rest}")).ok_or_else(wrong)?;
        let service = TextService::on_loopback(place).ok_or_else(wrong)?;
        return Ok(Some(Arc::new(service)));
    }
    let mut https = HttpsSettings::new(anchors.clone(), Vec::new());
    // A reader waits for it.
    https.patience = SIGN_IN_PATIENCE;
    let client = HttpsClient::new(https, Arc::clone(resolver) as _, Arc::clone(clock));
    let client = client.map_err(|e| StartError::Config(e.to_string()))?;
    let place = place_of(url).ok_or_else(wrong)?;
    Ok(Some(Arc::new(TextService::secured(place, client))))
}

/// Where readers may sign in elsewhere (`portal.oidc`); nobody is asked before somebody wants to.
fn providers(
    config: &Config,
    anchors: &TrustAnchors,
    resolver: &Arc<HickoryResolver>,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Arc<Provider>>, StartError> {
    let mut https = HttpsSettings::new(anchors.clone(), config.delivery.refuse_networks.clone());
    // A reader waits for it.
    https.patience = SIGN_IN_PATIENCE;
    let client = HttpsClient::new(https, Arc::clone(resolver) as _, Arc::clone(clock));
    let client = Arc::new(client.map_err(|e| StartError::Config(e.to_string()))?);
    let provider = |entry: &config::Oidc| {
        let settings = ProviderSettings {
            name: entry.name.clone(),
            issuer: entry.issuer.clone(),
            client_id: entry.client_id.clone(),
            secret: client_secret(entry)?,
            domains: entry.domains.clone(),
        };
        Ok(Arc::new(Provider::new(settings, Arc::clone(&client) as _)))
    };
    config.portal.oidc.iter().map(provider).collect()
}

/// The secret in `client_secret_file`: its first line.
fn client_secret(entry: &config::Oidc) -> Result<Zeroizing<String>, StartError> {
    let path = &entry.client_secret_file;
    let wrong = |e: &dyn Display| StartError::Config(format!("{}: {e}", path.display()));
    let file = fs::File::open(path).map_err(|e| wrong(&e))?;
    let mut text = Zeroizing::new(String::new());
    file.take(LARGEST_KEY).read_to_string(&mut text).map_err(|e| wrong(&e))?;
    let secret = text.trim();
    if secret.is_empty() || secret.contains(char::is_control) {
        return Err(wrong(&"no client secret: write it there, on one line"));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Logo and colours.
fn brand(organization: &config::Organization) -> Result<Brand, StartError> {
    let logo = match &organization.logo {
        Some(path) => {
            let wrong = |e: &dyn Display| StartError::Config(format!("{}: {e}", path.display()));
            let file = fs::File::open(path).map_err(|e| wrong(&e))?;
            let mut bytes = Vec::new();
            file.take(Logo::LARGEST + 1).read_to_end(&mut bytes).map_err(|e| wrong(&e))?;
            Some(Logo::new(bytes).map_err(|e| wrong(&e))?)
        }
        None => None,
    };
    Ok(Brand { logo, accent: organization.accent, accent_dark: organization.accent_dark })
}

/// A key file of `notification.dkim`.
fn dkim_key(entry: &config::Dkim) -> Result<DkimKey, StartError> {
    let wrong = |e: &dyn Display| StartError::Config(format!("{}: {e}", entry.key.display()));
    let file = fs::File::open(&entry.key).map_err(|e| wrong(&e))?;
    let mut pem = Zeroizing::new(Vec::new());
    file.take(LARGEST_KEY).read_to_end(&mut pem).map_err(|e| wrong(&e))?;
    DkimKey::from_pem(entry.domain.clone(), &entry.selector, &pem).map_err(|e| wrong(&e))
}

async fn open_store(config: &Config) -> Result<(Arc<SledStore>, KeyRing), StartError> {
    let (dir, keys) = (config.data_dir.clone(), RingKeeper::new(config));
    let opened = tokio::task::spawn_blocking(move || {
        make_private(&dir)
            .map_err(|e| StartError::NotPermitted(format!("{}: {e}", dir.display())))?;
        keys.load()?;
        let store = SledStore::open(&dir, Options::default())?;
        // Again, now that no other server can change it.
        let ring = keys.load_existing()?;
        keys.mark(&ring)?;
        Ok::<_, StartError>((Arc::new(store), ring))
    });
    opened.await.map_err(|error| StartError::Damaged(error.to_string()))?
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

pub(super) async fn portal_tls(
    config: &Config,
) -> Result<Option<(RustlsConfig, config::KeyPair)>, StartError> {
    let Some(pair) = &config.portal.tls else { return Ok(None) };
    // Checked with the same words as the SMTP certificate.
    TlsServer::load(&pair.certificate, &pair.key).map_err(|e| StartError::Config(e.to_string()))?;
    let tls = http1_tls(pair)
        .await
        .map_err(|error| StartError::Config(format!("{}: {error}", pair.certificate.display())))?;
    Ok(Some((tls, pair.clone())))
}

/// Certificate and key; browsers are offered HTTP/1.1 alone, the version whose patience the
/// server bounds.
pub(super) async fn http1_tls(pair: &config::KeyPair) -> std::io::Result<RustlsConfig> {
    let tls = RustlsConfig::from_pem_file(&pair.certificate, &pair.key).await?;
    let mut http1 = tls.get_inner().as_ref().clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.reload_from_config(Arc::new(http1));
    Ok(tls)
}

/// Everything that is said to recipients.
struct Spoken {
    notices: NoticeSettings,
    languages: Arc<Languages>,
    /// The portal's pages.
    pages: Texts,
}

fn texts(config: &Config) -> Result<Spoken, StartError> {
    let files = config.portal.languages.iter().map(|path| catalogue(path));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let wrong = |key: &str, e: &dyn Display| StartError::Config(format!("{key}: {e}"));
    let all = Languages::new(ENGLISH, &files).map_err(|e| StartError::Config(e.to_string()))?;
    let languages = all
        .speaking_first(&config.portal.language)
        .map(Arc::new)
        .map_err(|e| wrong("portal.language", &e))?;
    let mailed_in = languages
        .speaking_first(&config.notification.language)
        .map_err(|e| wrong("notification.language", &e))?;
    let (mailed, pages) = overrides(config.notification.template.as_deref())?;
    let notices = notice_settings(config, Arc::new(mailed_in), &mailed)?;
    Ok(Spoken { notices, languages, pages })
}

/// A file of `portal.languages`.
fn catalogue(path: &Path) -> Result<CatalogueFile, StartError> {
    let name = path.display().to_string();
    let wrong = |e: std::io::Error| StartError::Config(format!("{name}: {e}"));
    let mut text = String::new();
    let file = fs::File::open(path).map_err(wrong)?;
    file.take(CatalogueFile::LARGEST + 1).read_to_string(&mut text).map_err(wrong)?;
    Ok(CatalogueFile { name, text })
}

/// Templates by file name.
type Texts = BTreeMap<String, String>;

/// The texts of `notification.template`: what is mailed, and the portal's pages.
fn overrides(folder: Option<&Path>) -> Result<(Texts, Texts), StartError> {
    let Some(folder) = folder else { return Ok(Default::default()) };
    let wrong = |e: std::io::Error| StartError::Config(format!("{}: {e}", folder.display()));
    let mut texts = Texts::new();
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|n| n.ends_with(".html") || n.ends_with(".txt")) {
            texts.insert(name, fs::read_to_string(&path).map_err(wrong)?);
        }
    }
    Ok(texts.into_iter().partition(|(name, _)| is_mailed(name)))
}

/// Templates of what is mailed; all others are the portal's pages.
fn is_mailed(name: &str) -> bool {
    ["notice.", "code.", "changed.", "told."].iter().any(|start| name.starts_with(start))
}

fn notice_settings(
    config: &Config,
    languages: Arc<Languages>,
    overrides: &BTreeMap<String, String>,
) -> Result<NoticeSettings, StartError> {
    let templates =
        Templates::speaking(languages, overrides).map_err(|e| StartError::Config(e.to_string()))?;
    Ok(NoticeSettings {
        head: Letterhead {
            organization: config.organization.name.clone(),
            support: config.organization.support.clone(),
            from: config.notification.from.clone(),
            subject: config.notification.own_subject().map(str::to_owned),
        },
        templates,
        portal_url: config.portal.url.clone(),
        retention: config.portal.retention,
        note: config.notification.note.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::NamedGroup;

    #[tokio::test]
    async fn the_portal_takes_post_quantum_keys_and_http_1_1_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let made = rcgen::generate_simple_self_signed(["portal.example.org".to_owned()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = http1_tls(&config::KeyPair { certificate, key }).await.unwrap().get_inner();
        let groups = tls.crypto_provider().kx_groups.iter().map(|group| group.name());
        assert!(groups.take(1).eq([NamedGroup::X25519MLKEM768]));
        assert_eq!(tls.alpn_protocols, [b"http/1.1".to_vec()]);
    }
}
