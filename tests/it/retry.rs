//! What trouble at each stage of a session means: the next host now, the same again later, or an end.
//! The real relay and the real SMTP session, over a network in memory and in virtual time.

use crate::simulation::{
    Chance, Event,
    faults::Mode,
    host::{Act, Host, Link, Script, Stage, Tls},
    world::{HOUR, MINUTE, World, hosts, in_virtual_time, letter, zones},
};
use std::{net::IpAddr, time::Duration};

/// What becomes of a message to `plain.example`, whose first host has two addresses and this script
/// at both.
struct Row {
    name: &'static str,
    script: Script,
    /// Addresses that are tried, in order.
    tried: &'static [&'static str],
    /// Times that it is put off.
    waits: usize,
    /// Hosts that take the whole message.
    taken: &'static [&'static str],
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Delivered,
    Bounced,
}

/// Both addresses of the first host, then the second host.
const ON: &[&str] = &["mx1/6", "mx1/4", "mx2/4"];
/// The first address.
const STAY: &[&str] = &["mx1/6"];
/// The first address, and again later, when nothing is wrong any more.
const AGAIN: &[&str] = &["mx1/6", "mx1/6"];

const MX1: &[&str] = &["mx1"];
const MX2: &[&str] = &["mx2"];

fn slow(minutes: u64) -> Act {
    Act::Slow(Duration::from_secs(minutes * 60))
}

/// The next host has it at once.
fn on(name: &'static str, stage: Stage, act: Act) -> Row {
    let (tried, taken) = (ON, MX2);
    Row { name, script: Script::at(stage, act), tried, waits: 0, taken, end: End::Delivered }
}
/// The first host has it at once.
fn stay(name: &'static str, stage: Stage, act: Act) -> Row {
    let (tried, taken) = (STAY, MX1);
    Row { name, script: Script::at(stage, act), tried, waits: 0, taken, end: End::Delivered }
}
/// Nobody else is asked, and it goes out again later.
fn again(name: &'static str, stage: Stage, act: Act, taken: &'static [&'static str]) -> Row {
    let (tried, end) = (AGAIN, End::Delivered);
    Row { name, script: Script::at(stage, act), tried, waits: 1, taken, end }
}
/// It is over, and the sender hears of it.
fn over(name: &'static str, stage: Stage, act: Act) -> Row {
    let (tried, taken) = (STAY, [].as_slice());
    Row { name, script: Script::at(stage, act), tried, waits: 0, taken, end: End::Bounced }
}

fn table() -> Vec<Row> {
    use Stage::{Content, Data, Dot, Ehlo, Greeting, Mail, Rcpt};
    let later = Act::Say(451, "4.3.0 Later");
    let no = Act::Say(554, "5.7.1 No");
    let link = |name, link| Row { script: Script::link(link), ..on(name, Greeting, later) };
    vec![
        link("no connection: refused", Link::Refused),
        link("no connection: no answer", Link::Dead),
        on("greeting 4xx", Greeting, later),
        on("greeting 421", Greeting, Act::Hangup),
        on("greeting 554 is the host's trouble, not the message's (RFC 5321 §3.1)", Greeting, no),
        on("closed in place of a greeting", Greeting, Act::Drop),
        stay("greeting after 4 of 5 minutes", Greeting, slow(4)),
        on("no greeting within 5 minutes", Greeting, slow(6)),
        on("EHLO 4xx", Ehlo, later),
        on("EHLO 421", Ehlo, Act::Hangup),
        on("closed at EHLO", Ehlo, Act::Drop),
        stay("EHLO after 4 of 5 minutes", Ehlo, slow(4)),
        on("EHLO not answered within 5 minutes", Ehlo, slow(6)),
        stay("EHLO 5xx: HELO", Ehlo, Act::Say(500, "5.5.1 What?")),
        on("MAIL 4xx", Mail, later),
        on("MAIL 421", Mail, Act::Hangup),
        over("MAIL 5xx", Mail, no),
        on("closed at MAIL", Mail, Act::Drop),
        stay("MAIL after 4 of 5 minutes", Mail, slow(4)),
        on("MAIL not answered within 5 minutes", Mail, slow(6)),
        on("RCPT 4xx", Rcpt, later),
        on("RCPT 421", Rcpt, Act::Hangup),
        over("RCPT 5xx", Rcpt, no),
        on("closed at RCPT", Rcpt, Act::Drop),
        stay("RCPT after 4 of 5 minutes", Rcpt, slow(4)),
        on("RCPT not answered within 5 minutes", Rcpt, slow(6)),
        on("DATA 4xx", Data, later),
        on("DATA 421", Data, Act::Hangup),
        over("DATA 5xx", Data, no),
        on("closed at DATA", Data, Act::Drop),
        stay("DATA after 4 of 5 minutes", Data, slow(4)),
        on("DATA not answered within 5 minutes", Data, slow(6)),
        again("closed once the whole content is sent, before it is read", Content, Act::Drop, MX1),
        on("the final dot 4xx", Dot, later),
        on("the final dot 421", Dot, Act::Hangup),
        over("the final dot 5xx", Dot, no),
        again("closed after the dot, nothing taken", Dot, Act::Drop, MX1),
        again("taken, and the reply lost", Dot, Act::TakeAndDrop, &["mx1", "mx1"]),
        stay("the dot answered after 9 of 10 minutes (RFC 5321 §4.5.3.2.6)", Dot, slow(9)),
        again("taken, and the dot not answered within 10 minutes", Dot, slow(11), &["mx1", "mx1"]),
    ]
}

fn short(ip: IpAddr) -> &'static str {
    match ip.to_string().as_str() {
        "2001:db8::1" => "mx1/6",
        "192.0.2.1" => "mx1/4",
        "192.0.2.2" => "mx2/4",
        _ => "elsewhere",
    }
}

/// A run without chance.
async fn run(change: impl FnOnce(&mut Vec<Host>), to: &[&'static str]) -> World {
    let mut hosts = hosts();
    change(&mut hosts);
    let world = World::new(Chance::new(1), hosts, zones(), Mode::Never);
    world.send(letter("m", to));
    world.live(&[]).await;
    world
}

impl World {
    fn path(&self) -> Vec<&'static str> {
        let dialed = self.network.dialed.lock().expect("unbroken");
        dialed.iter().map(|ip| short(*ip)).filter(|at| *at != "elsewhere").collect()
    }
    /// Who took it, by the first label of the host's name.
    fn takers(&self, recipient: &str) -> Vec<String> {
        let book = self.ledger.book();
        let of = |event: &Event| match event {
            Event::Taken { to, host, .. } if to == recipient => {
                Some(host.split('.').next().unwrap_or_default().to_owned())
            }
            Event::Taken { .. } | Event::Settled { .. } | Event::Broken => None,
        };
        book.events.iter().filter_map(of).collect()
    }
    fn waits(&self, recipient: &str) -> usize {
        let book = self.ledger.book();
        let waits = |event: &&Event| matches!(event, Event::Settled { to, ended: false, .. } if to == recipient);
        book.events.iter().filter(waits).count()
    }
    async fn is_right(&self, name: &str) {
        let wrong = self.check().await;
        assert!(wrong.is_empty(), "{name}: {wrong:?}\n{}", self.trace.tail(60));
    }
}

#[test]
fn trouble_at_each_stage_means_what_the_rfc_says() {
    for row in table() {
        in_virtual_time(async {
            let script = |hosts: &mut Vec<Host>| {
                // Both addresses where both are tried; once where the same comes again later.
                let times = row.tried.iter().filter(|at| at.starts_with("mx1")).count();
                let times = if row.waits > 0 { 1 } else { times };
                let scripts = std::iter::repeat_n(row.script.clone(), times);
                *hosts[0].scripts.lock().expect("unbroken") = scripts.collect();
            };
            let world = run(script, &["plain.example"]).await;
            let (name, to) = (row.name, "m-1r0@plain.example");
            let end = if row.end == End::Delivered { "delivered" } else { "bounced" };
            assert_eq!(world.end_of("m-1", 0).await, end, "{name}\n{}", world.trace.tail(60));
            assert_eq!(world.path(), row.tried, "{name}\n{}", world.trace.tail(60));
            assert_eq!(world.takers(to), row.taken, "{name}\n{}", world.trace.tail(60));
            assert_eq!(world.waits(to), row.waits, "{name}\n{}", world.trace.tail(60));
            world.is_right(name).await;
        });
    }
}

#[test]
fn an_address_that_does_not_answer_costs_no_more_than_its_time() {
    in_virtual_time(async {
        let deaf = |hosts: &mut Vec<Host>| {
            let first = hosts[0].addresses[0];
            hosts[0].deaf.push(first);
        };
        let world = run(deaf, &["plain.example"]).await;
        assert_eq!(world.path(), ["mx1/6", "mx1/4"], "IPv6, then IPv4 of the same host");
        assert_eq!(world.takers("m-1r0@plain.example"), ["mx1"]);
        world.is_right("IPv6 is deaf").await;
    });
}

#[test]
fn where_all_hosts_fail_the_schedule_says_when_again() {
    in_virtual_time(async {
        let later = Script::at(Stage::Mail, Act::Say(450, "4.2.1 Busy"));
        let put_off = |hosts: &mut Vec<Host>| {
            // Three attempts: the first host by two addresses, the second by one.
            for (host, times) in [(0, 6), (1, 3)] {
                let scripts = std::iter::repeat_n(later.clone(), times);
                *hosts[host].scripts.lock().expect("unbroken") = scripts.collect();
            }
        };
        let world = run(put_off, &["plain.example"]).await;
        assert_eq!(world.waits("m-1r0@plain.example"), 3);
        assert_eq!(world.path().len(), 10, "{:?}", world.path());
        assert_eq!(world.takers("m-1r0@plain.example"), ["mx1"]);
        world.is_right("450 at every host").await;
    });
}

#[test]
fn greylisting_is_waited_out() {
    for minutes in [1, 4, 20] {
        in_virtual_time(async {
            let strict = |hosts: &mut Vec<Host>| {
                for host in hosts.iter_mut().take(2) {
                    host.greylist = Some(Duration::from_secs(minutes * 60));
                }
            };
            let world = run(strict, &["plain.example"]).await;
            let to = "m-1r0@plain.example";
            assert!(world.waits(to) >= 1, "{minutes} minutes");
            assert_eq!(world.takers(to).len(), 1, "{minutes} minutes");
            world.is_right("greylisting").await;
        });
    }
}

#[test]
fn each_recipient_comes_to_its_own_end() {
    in_virtual_time(async {
        let mut hosts = hosts();
        // Two of the three are known here; the third is met for the first time.
        for host in hosts.iter_mut().take(2) {
            host.greylist = Some(2 * MINUTE);
            let known = tokio::time::Instant::now() - HOUR;
            let mut all = host.known.lock().expect("unbroken");
            all.insert("m-1r0@plain.example".to_owned(), known);
        }
        let world = World::new(Chance::new(1), hosts, zones(), Mode::Never);
        let mut mixed = letter("m", &["plain.example", "plain.example"]);
        mixed.to.push(("plain.example", true));
        world.send(mixed);
        world.live(&[]).await;
        let ends = [
            world.end_of("m-1", 0).await,
            world.end_of("m-1", 1).await,
            world.end_of("m-1", 2).await,
        ];
        assert_eq!(ends, ["delivered", "delivered", "bounced"]);
        assert_eq!(world.waits("m-1r0@plain.example"), 0);
        assert!(world.waits("m-1r1@plain.example") > 0);
        world.is_right("three recipients").await;
    });
}

#[test]
fn dns_trouble_defers_and_never_bounces() {
    for (name, domain, hours, end) in [
        ("no MX answer for two hours", "plain.example", 2, "delivered"),
        ("no MX answer for ever", "plain.example", 1000, "expired"),
        ("a level that asks TLS, and no MX answer for two hours", "tls.example", 2, "delivered"),
        ("a level that asks TLS, and no MX answer for ever", "tls.example", 1000, "expired"),
    ] {
        in_virtual_time(async {
            let mut zones = zones();
            let window = (Duration::ZERO, hours * HOUR);
            zones.iter_mut().filter(|z| z.domain == domain).for_each(|z| z.trouble.push(window));
            let world = World::new(Chance::new(1), hosts(), zones, Mode::Never);
            world.send(letter("m", &[domain]));
            world.live(&[]).await;
            assert_eq!(world.end_of("m-1", 0).await, end, "{name}");
            world.is_right(name).await;
        });
    }
}

#[test]
fn a_host_that_cannot_be_looked_up_is_no_reason_to_bounce() {
    in_virtual_time(async {
        let hide = |hosts: &mut Vec<Host>| {
            for host in hosts.iter_mut().take(2) {
                host.hidden = vec![(Duration::ZERO, 2 * HOUR)];
            }
        };
        let world = run(hide, &["plain.example"]).await;
        assert!(world.waits("m-1r0@plain.example") > 3);
        assert_eq!(world.end_of("m-1", 0).await, "delivered");
        world.is_right("no address").await;
    });
}

/// A partner's TLS that fails is waited for, and after `otherwise_after` the message is sealed; it
/// never goes out in the open.
#[test]
fn tls_that_fails_is_never_plaintext() {
    let at = |stage, act| Script::at(stage, act);
    for (name, script) in [
        ("STARTTLS not offered", Script::tls(Tls::NotOffered)),
        ("no handshake", Script::tls(Tls::Broken)),
        ("STARTTLS 454", at(Stage::StartTls, Act::Say(454, "4.7.0 Not now"))),
        ("closed at STARTTLS", at(Stage::StartTls, Act::Drop)),
    ] {
        for (domain, end) in [("tls.example", "granted"), ("strict.example", "expired")] {
            in_virtual_time(async {
                let break_tls = |hosts: &mut Vec<Host>| {
                    for host in hosts.iter_mut().filter(|h| h.tls) {
                        let scripts = std::iter::repeat_n(script.clone(), 500);
                        *host.scripts.lock().expect("unbroken") = scripts.collect();
                    }
                };
                let world = run(break_tls, &[domain]).await;
                assert_eq!(world.end_of("m-1", 0).await, end, "{name} at {domain}");
                world.is_right(name).await;
            });
        }
    }
}

/// What failed before TLS was proved tells nothing of the level: it is retried.
#[test]
fn a_partner_out_of_reach_is_not_sealed() {
    for (name, script) in [
        ("refused", Script::link(Link::Refused)),
        ("closed in the EHLO inside TLS", Script::at(Stage::EhloInTls, Act::Drop)),
        ("451 inside TLS", Script::at(Stage::Mail, Act::Say(451, "4.3.0 Later"))),
    ] {
        in_virtual_time(async {
            let away = |hosts: &mut Vec<Host>| {
                for host in hosts.iter_mut().filter(|h| h.tls) {
                    // Longer than `otherwise_after`.
                    let scripts = std::iter::repeat_n(script.clone(), 6);
                    *host.scripts.lock().expect("unbroken") = scripts.collect();
                }
            };
            let world = run(away, &["tls.example"]).await;
            assert_eq!(world.end_of("m-1", 0).await, "delivered", "{name}");
            assert!(world.waits("m-1r0@tls.example") >= 4, "{name}");
            world.is_right(name).await;
        });
    }
}
