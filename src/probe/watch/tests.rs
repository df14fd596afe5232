//! Partners that change from one round to the next, and what is warned of.

use super::*;
use crate::{
    policies::Policies,
    policy::{Dnssec, MxFacts, PolicySet, Trouble},
    probe::tests::{DOMAIN, Play, World, certificate, good, set, start},
    store::memory::MemoryStore,
};
use jiff::SignedDuration;
use std::sync::Mutex;

const MX1: &str = "mx1.partner.example";
const MX2: &str = "mx2.partner.example";
const PARTNER: (&str, &str) =
    ("p.toml", "[[partner]]\ndomains = [\"partner.example\"]\nlevel = \"secure\"\n");

#[derive(Debug)]
struct Edited(Mutex<Arc<PolicySet>>);
impl Policies for Edited {
    fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0.lock().unwrap())
    }
}

/// A world with a watch; `restart` leaves the notes alone.
struct House {
    world: Arc<World>,
    policies: Arc<Edited>,
    notes: MemoryStore,
    watch: Watch,
}

impl House {
    fn new(hosts: &[(&str, Play)]) -> Self {
        let world = World::new(Dnssec::Insecure, hosts);
        let policies = Arc::new(Edited(Mutex::new(Arc::new(set(&[PARTNER])))));
        let notes = MemoryStore::new();
        let watch = watch(&world, &policies, &notes);
        Self { world, policies, notes, watch }
    }

    async fn restart(&mut self) {
        self.watch = watch(&self.world, &self.policies, &self.notes);
        self.watch.recall().await.unwrap();
    }

    /// Hours later the hosts are these, and a round is made.
    async fn later(&self, hours: i64, hosts: &[(&str, Play)]) -> Vec<Kind> {
        self.world.set(Dnssec::Insecure, hosts);
        self.round(hours).await
    }

    async fn round(&self, hours: i64) -> Vec<Kind> {
        *self.world.now.lock().unwrap() += SignedDuration::from_hours(hours);
        self.watch.round(Duration::ZERO).await;
        self.kinds()
    }

    fn kinds(&self) -> Vec<Kind> {
        self.watch.board.warnings().into_iter().map(|warned| warned.kind).collect()
    }

    fn warned(&self, kind: Kind) -> Warned {
        let all = self.watch.board.warnings();
        all.into_iter().find(|warned| warned.kind == kind).unwrap()
    }
}

fn watch(world: &Arc<World>, policies: &Arc<Edited>, notes: &MemoryStore) -> Watch {
    Watch::new(
        world.prober(),
        Arc::clone(policies) as _,
        Arc::new(notes.clone()),
        Arc::clone(world) as _,
        Board::default(),
    )
}

fn ends_in(days: i64) -> Play {
    certificate(&[MX1], None, days)
}

#[tokio::test]
async fn nothing_is_warned_of_where_all_is_well() {
    let house = House::new(&[(MX1, good(MX1))]);
    assert_eq!(house.round(0).await, []);
    assert_eq!(house.round(6).await, []);
}

#[tokio::test]
async fn a_certificate_that_ends_soon() {
    let house = House::new(&[(MX1, ends_in(22)), (MX2, good(MX2))]);
    assert_eq!(house.round(0).await, []);
    assert_eq!(house.round(25).await, [Kind::CertificateEnds], "within 21 days");
    let warned = house.warned(Kind::CertificateEnds);
    assert_eq!(warned.domain, DOMAIN);
    assert_eq!(warned.since, start() + SignedDuration::from_hours(25));
    assert_eq!(warned.text, "the certificate of mx1.partner.example ends 2026-12-17");
    house.round(6).await;
    assert_eq!(house.warned(Kind::CertificateEnds).since, warned.since, "it goes on");
    assert_eq!(house.later(6, &[(MX1, good(MX1)), (MX2, good(MX2))]).await, [], "renewed");
}

#[tokio::test]
async fn starttls_that_is_gone_and_comes_back() {
    let gone = || (MX2, Play::Trouble(Trouble::NoStartTls));
    let house = House::new(&[(MX1, good(MX1)), (MX2, good(MX2))]);
    assert_eq!(house.round(0).await, []);
    let both = [Kind::StarttlsGone, Kind::LevelNotMet];
    assert_eq!(house.later(6, &[(MX1, good(MX1)), gone()]).await, both);
    assert_eq!(house.later(6, &[(MX1, good(MX1)), gone()]).await, both, "still gone");
    let text = house.warned(Kind::StarttlsGone).text;
    assert_eq!(text, "mx2.partner.example no longer offers STARTTLS");
    assert_eq!(house.later(6, &[(MX1, good(MX1)), (MX2, good(MX2))]).await, []);
}

#[tokio::test]
async fn a_host_that_never_had_starttls_has_not_lost_it() {
    let house = House::new(&[(MX1, Play::Trouble(Trouble::NoStartTls))]);
    assert_eq!(house.round(0).await, [Kind::LevelNotMet]);
    assert_eq!(house.round(6).await, [Kind::LevelNotMet]);
    let text = house.warned(Kind::LevelNotMet).text;
    assert!(text.contains("level secure would not be met: mx1.partner.example ["), "{text}");
    assert!(text.contains("does not offer STARTTLS"), "{text}");
}

#[tokio::test]
async fn another_mx_set_is_shown_for_days_or_until_it_is_the_old_one_again() {
    let (one, two) = ([(MX1, good(MX1))], [(MX1, good(MX1)), (MX2, good(MX2))]);
    let house = House::new(&one);
    assert_eq!(house.round(0).await, []);
    assert_eq!(house.later(6, &two).await, [Kind::MxChanged]);
    let text = house.warned(Kind::MxChanged).text;
    assert_eq!(
        text,
        "the mail hosts were mx1.partner.example and are now mx1.partner.example, mx2.partner.example"
    );
    assert_eq!(house.round(6).await, [Kind::MxChanged], "still shown");
    assert_eq!(house.later(6, &one).await, [], "as it was");
    assert_eq!(house.later(6, &two).await, [Kind::MxChanged]);
    assert_eq!(house.round(71).await, [Kind::MxChanged]);
    assert_eq!(house.round(1).await, [], "known by now");
    let turned = [(MX2, good(MX2)), (MX1, good(MX1))];
    assert_eq!(house.later(6, &turned).await, [], "the order is no change");
}

#[tokio::test]
async fn doubt_keeps_what_was_seen() {
    let gone = [(MX1, Play::Trouble(Trouble::NoStartTls))];
    let house = House::new(&[(MX1, good(MX1))]);
    house.round(0).await;
    let both = [Kind::StarttlsGone, Kind::LevelNotMet];
    assert_eq!(house.later(6, &gone).await, both);
    *house.world.mx.lock().unwrap() = MxFacts::Trouble("SERVFAIL".into());
    let three = [Kind::StarttlsGone, Kind::LevelNotMet, Kind::DnsTrouble];
    assert_eq!(house.round(6).await, three, "DNS could not say");
    assert_eq!(house.later(6, &[(MX1, Play::DnsTrouble)]).await, three, "nor here");
    let away = [(MX1, Play::Trouble(Trouble::Unreachable))];
    let three = [Kind::StarttlsGone, Kind::LevelNotMet, Kind::Unreachable];
    assert_eq!(house.later(6, &away).await, three, "nobody answers");
    assert_eq!(house.later(6, &[(MX1, good(MX1))]).await, []);
}

#[tokio::test]
async fn a_domain_that_takes_no_mail_does_not_meet_its_level() {
    let house = House::new(&[(MX1, good(MX1))]);
    house.round(0).await;
    *house.world.mx.lock().unwrap() = MxFacts::NoDomain;
    assert_eq!(house.round(6).await, [Kind::LevelNotMet]);
    assert_eq!(house.warned(Kind::LevelNotMet).text, "the domain does not exist");
    assert_eq!(house.later(6, &[(MX1, good(MX1))]).await, []);
}

#[tokio::test]
async fn what_was_seen_survives_a_restart() {
    let mut house = House::new(&[(MX1, ends_in(20))]);
    assert_eq!(house.round(0).await, [Kind::CertificateEnds]);
    house.restart().await;
    assert_eq!(house.kinds(), [Kind::CertificateEnds], "before the first round");
    let changed = [(MX1, Play::Trouble(Trouble::NoStartTls)), (MX2, good(MX2))];
    let kinds = house.later(6, &changed).await;
    assert_eq!(kinds, [Kind::StarttlsGone, Kind::MxChanged, Kind::LevelNotMet]);
    house.restart().await;
    assert_eq!(house.warned(Kind::MxChanged).since, start() + SignedDuration::from_hours(6));
}

#[tokio::test]
async fn an_entry_that_is_gone_takes_its_warnings_with_it() {
    let house = House::new(&[(MX1, ends_in(20))]);
    assert_eq!(house.round(0).await, [Kind::CertificateEnds]);
    *house.policies.0.lock().unwrap() = Arc::default();
    assert_eq!(house.round(6).await, []);
    assert_eq!(house.notes.notes(NoteKind::Watch, None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn notes_that_make_no_sense_are_a_first_look() {
    let house = House::new(&[(MX1, ends_in(20))]);
    house.notes.put_note(NoteKind::Watch, DOMAIN, b"{".to_vec()).await.unwrap();
    assert_eq!(house.round(0).await, [Kind::CertificateEnds]);
}

#[test]
fn who_is_watched() {
    let entry = |domains: &str, more: &str| format!("[[partner]]\ndomains = {domains}\n{more}\n");
    for (text, expected, reason) in [
        (entry(r#"["b.example", "a.example"]"#, "level = \"encrypt\""), "a.example b.example", ""),
        (entry(r#"["a.example"]"#, "level = \"envelope\""), "", "never delivered directly"),
        (entry(r#"["a.example"]"#, "level = \"none\""), "", "no TLS to look at"),
        (entry(r#"[".a.example"]"#, "level = \"encrypt\""), "", "no host by that name"),
        (
            entry(
                r#"[".b.example", ".a.example"]"#,
                "level = \"encrypt\"\nnext_hop = \"[r.example]\"",
            ),
            ".a.example",
            "one next hop, looked at once",
        ),
        (
            entry(
                r#"["b.example", ".a.example"]"#,
                "level = \"encrypt\"\nnext_hop = \"[r.example]\"",
            ),
            "b.example",
            "the exact name stands for both",
        ),
        (
            entry(r#"["a.example"]"#, "level = \"encrypt\"\nexpires = \"2026-11-01\""),
            "",
            "no longer in force",
        ),
    ] {
        let set = set(&[("p.toml", &text)]);
        assert_eq!(set.watched(start()).join(" "), expected, "{text}{reason}");
    }
}

#[test]
fn kinds_are_called_alike_everywhere() {
    for kind in Kind::ALL {
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
    }
}
