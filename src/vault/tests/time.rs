//! A clock that jumps destroys nothing.
use super::*;
use crate::{
    clock::{KeptTime, TrustedTime},
    store::{NoteKind, NoteStore},
};

impl House {
    /// True if the message can still be opened.
    async fn keeps(&self, row: &MessageRow) -> bool {
        let found = self.store.message(row.facts.id).await.unwrap();
        found.is_some_and(|(row, _)| row.body != Locator::Gone)
            && self.store.sealed_bytes(row.facts.id).is_some()
    }
    /// Time passes with a sweep every half hour.
    async fn sweeps(&self, time: SignedDuration) -> usize {
        let mut freed = 0;
        for _ in 0..time.as_hours() * 2 {
            self.clock.forward(SignedDuration::from_mins(30));
            freed += self.vault.sweep().await.unwrap();
        }
        freed
    }
    /// The same vault in a new process.
    async fn restarted(self) -> Self {
        let guard = clock_guard(self.clock.clone(), &self.store).await.unwrap();
        let vault = Vault { guard: Arc::new(guard), ..self.vault };
        Self { vault, ..self }
    }
    async fn kept(&self) -> KeptTime {
        let note = self.store.note(NoteKind::Clock, "seen").await.unwrap().unwrap();
        serde_json::from_slice(&note).unwrap()
    }
}

#[tokio::test]
async fn a_jump_destroys_nothing_until_the_clock_has_gone_steadily_for_a_day() {
    let house = house();
    let (row, grant, _) = house.granted(&mail(100)).await;
    house.clock.set(DAY * 60);
    assert_eq!(house.vault.sweep().await.unwrap(), 0);
    assert!(house.keeps(&row).await);
    let ann = account("ann@stranger.example");
    let answer = house.vault.access(grant.id, &ann, &SessionFacts::default()).await.unwrap();
    assert!(matches!(answer, AccessAnswer::Over), "kept, and not readable");
    // An operator has a day to look.
    assert_eq!(house.sweeps(DAY - SignedDuration::from_hours(1)).await, 0);
    assert!(house.keeps(&row).await);
    assert_eq!(house.sweeps(SignedDuration::from_hours(1)).await, 1);
    assert!(!house.keeps(&row).await);
}

#[tokio::test]
async fn while_the_clock_is_in_doubt_a_recall_destroys_and_its_record_stays() {
    let house = house();
    let (row, grant, _) = house.granted(&mail(100)).await;
    house.clock.set(DAY * 90);
    house.vault.recall(&[grant.id]).await.unwrap();
    assert_eq!(house.vault.sweep().await.unwrap(), 1);
    assert!(!house.keeps(&row).await);
    assert!(house.store.message(row.facts.id).await.unwrap().is_some());
    house.vault.confirm_clock().await.unwrap();
    house.vault.sweep().await.unwrap();
    assert!(house.store.message(row.facts.id).await.unwrap().is_none());
}

#[tokio::test]
async fn after_a_jump_is_mended_all_is_as_before() {
    let house = house();
    let (row, grant, _) = house.granted(&mail(100)).await;
    house.clock.set(DAY * 60);
    assert_eq!(house.sweeps(DAY / 2).await, 0);
    house.clock.set(-DAY * 60);
    house.vault.sweep().await.unwrap();
    assert!(house.keeps(&row).await);
    house.access(&grant).await;
    assert_eq!(house.sweeps(DAY * 30).await, 1, "and it ends at its time");
}

#[tokio::test]
async fn an_operators_word_lets_what_is_over_end() {
    let house = house();
    let (row, ..) = house.granted(&mail(100)).await;
    assert!(!house.vault.confirm_clock().await.unwrap(), "nothing is in doubt");
    house.clock.set(DAY * 60);
    assert_eq!(house.vault.sweep().await.unwrap(), 0);
    assert!(house.vault.confirm_clock().await.unwrap());
    assert_eq!(house.kept().await, KeptTime { seen: house.clock.now(), doubt: None });
    assert_eq!(house.vault.sweep().await.unwrap(), 1);
    assert!(!house.keeps(&row).await);
}

#[tokio::test]
async fn the_time_is_kept_and_held_against_the_clock_at_the_next_start() {
    for (off, destroyed) in [(DAY * 5, 1), (DAY * 30, 0), (DAY * 60, 0), (-DAY * 60, 0)] {
        let house = house();
        let (row, ..) = house.granted(&mail(100)).await;
        house.clock.forward(DAY * 26);
        assert_eq!(house.vault.sweep().await.unwrap(), 0);
        assert_eq!(house.kept().await, KeptTime { seen: house.clock.now(), doubt: None });
        house.clock.set(off);
        let house = house.restarted().await;
        assert_eq!(house.vault.sweep().await.unwrap(), destroyed, "{off}");
        // What is not destroyed is not lost in the restarts that people try first.
        let house = house.restarted().await;
        assert_eq!(house.vault.sweep().await.unwrap(), 0, "{off}");
        assert_eq!(house.keeps(&row).await, destroyed == 0, "{off}");
        house.sweeps(DAY).await;
        assert_eq!(house.keeps(&row).await, off < SignedDuration::ZERO, "{off}");
        assert_eq!(house.kept().await, KeptTime { seen: house.clock.now(), doubt: None });
    }
}

#[tokio::test]
async fn a_kept_time_that_does_not_read_stops_expiry() {
    let house = house();
    house.store.put_note(NoteKind::Clock, "seen", b"{".to_vec()).await.unwrap();
    let house = house.restarted().await;
    assert!(house.vault.guard.check().is_err());
    assert!(house.vault.confirm_clock().await.unwrap());
    assert!(house.restarted().await.vault.guard.check().is_ok());
}

#[tokio::test]
async fn what_is_sealed_while_the_clock_is_behind_keeps_its_time() {
    let house = house();
    let right = house.clock.now();
    house.clock.set(-DAY * 60);
    let (row, grant, _) = house.granted(&mail(100)).await;
    assert_eq!(grant.expires, right + DAY * 30);
    house.clock.set(DAY * 60);
    assert_eq!(house.vault.sweep().await.unwrap(), 0);
    assert!(house.keeps(&row).await);
    assert_eq!(house.vault.guard.check().map(TrustedTime::get), Ok(right));
}
