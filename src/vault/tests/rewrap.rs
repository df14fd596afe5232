//! Rotation of the key ring.

use super::*;
use crate::{
    seal::{KeyId, Prelude, WrappedKey},
    store::{NoteKind, NoteStore, PeopleStore, QueueStore, SecondFactor},
    vault::{KeyRound, rewrap::wrapped_again},
};

fn added(ring: &KeyRing) -> Result<KeyRing, RingError> {
    ring.with_key(random_secret())
}
impl House {
    fn rotate(&self) {
        self.vault.change_ring(added).unwrap();
    }
    fn slots(&self, id: QueueId) -> Vec<Option<WrappedKey>> {
        Prelude::parse(&self.store.sealed_bytes(id).unwrap()).unwrap().slots
    }
    fn key_of(&self, id: QueueId) -> Vec<KeyId> {
        self.slots(id).iter().flatten().map(WrappedKey::key).collect()
    }
    async fn with_second_factor(&self) -> Account {
        let mut account = account("ann@stranger.example");
        let (seed, _ring) = self.vault.new_seed(account.generation);
        account.second = Some(SecondFactor { seed, on: true, step: 0, recovery: vec![] });
        self.store.change_account(AccountChange::new(None, account.clone())).await.unwrap();
        account
    }
    async fn seed(&self) -> WrappedKey {
        let account = self.store.account(&address("ann@stranger.example")).await.unwrap().unwrap();
        account.second.unwrap().seed
    }
}
async fn text(content: Result<Content, VaultError>) -> Vec<u8> {
    let (mut content, mut whole) = (content.unwrap(), Vec::new());
    while let Some(piece) = content.next().await.unwrap() {
        whole.extend_from_slice(&piece);
    }
    whole
}

#[tokio::test]
async fn a_rotation_wraps_all_again_and_then_the_old_key_is_needed_no_more() {
    let house = house();
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Idle);
    let mut ids = Vec::new();
    for length in [100, 2 * SMALL] {
        let message = seal(&house.vault, &mail(length), 50_000).await;
        ids.push(message.facts.id);
        house.store.accept(message).await.unwrap();
    }
    let account = house.with_second_factor().await;
    let secret = house.vault.secret_of(&house.seed().await, account.generation).unwrap();
    house.rotate();
    let new = seal(&house.vault, &mail(100), 50_000).await;
    ids.push(new.facts.id);
    house.store.accept(new).await.unwrap();
    assert_eq!(house.key_of(ids[2]), [KeyId(2)], "what is new is wrapped by the new key");
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Done(vec![KeyId(1)]));
    let progress = house.vault.key_progress();
    assert_eq!((progress.rewrapped, progress.remaining, progress.unreadable), (3, 0, 0));
    assert_eq!(progress.keys, [KeyId(1), KeyId(2)]);
    house.vault.change_ring(|ring| Ok::<_, RingError>(ring.without(&[KeyId(1)]))).unwrap();
    for (id, length) in ids.iter().zip([100, 2 * SMALL, 100]) {
        assert_eq!(house.key_of(*id), [KeyId(2)]);
        let (row, _) = house.store.message(*id).await.unwrap().unwrap();
        assert!(text(house.vault.export(&row).await).await == mail(length));
    }
    let seed = house.seed().await;
    assert_eq!(seed.key(), KeyId(2));
    assert_eq!(house.vault.secret_of(&seed, account.generation).unwrap(), secret);
    assert_eq!(house.store.notes(NoteKind::Keys, None, 9).await.unwrap(), []);
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Idle);
}

#[tokio::test]
async fn a_key_is_not_retired_while_a_message_that_it_wrapped_is_on_its_way() {
    let house = house();
    let small = seal(&house.vault, &mail(100), 50_000).await;
    let large = seal(&house.vault, &mail(2 * SMALL), 50_000).await;
    let facts = facts(&house.vault, Class::Protected, None);
    let coming = house.vault.deposit(facts, vec![address("ann@stranger.example")]).unwrap();
    let (seed, seeding) = house.vault.new_seed([1; 16]);
    house.rotate();
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Again);
    house.store.accept(small).await.unwrap();
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Again);
    house.store.accept(large).await.unwrap();
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Again);
    drop(coming);
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Again);
    drop((seed, seeding));
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Again, "two more were found");
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Done(vec![KeyId(1)]));
    assert_eq!(house.vault.key_progress().rewrapped, 2);
}

#[tokio::test]
async fn a_key_that_does_not_open_keeps_its_ring_key() {
    let house = house();
    let message = seal(&house.vault, &mail(100), 50_000).await;
    let id = message.facts.id;
    house.store.accept(message).await.unwrap();
    let (row, _) = house.store.message(id).await.unwrap().unwrap();
    let mut bytes = house.slots(id)[0].clone().unwrap().to_bytes();
    bytes[40] ^= 1;
    let damaged = WrappedKey::from_bytes(&bytes).unwrap();
    house.vault.bodies.rewrap(id, &row.body, 0, &damaged).await.unwrap();
    house.rotate();
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Unreadable(1));
    assert_eq!(house.vault.key_progress().unreadable, 1);
    house.store.delete(id, &row.body).await.unwrap();
    house.store.forget_body(id).await.unwrap_err();
}

#[tokio::test]
async fn a_rotation_goes_on_where_it_was_left() {
    let house = house();
    for _ in 0..3 {
        house.store.accept(seal(&house.vault, &mail(100), 50_000).await).await.unwrap();
    }
    house.rotate();
    let note = br#"{"to":2,"after":null,"whole":true,"rewrapped":41}"#.to_vec();
    house.store.put_note(NoteKind::Keys, "rewrap", note).await.unwrap();
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Again, "all are looked at again");
    assert_eq!(house.vault.key_progress().rewrapped, 44);
    assert_eq!(house.vault.rewrap().await.unwrap(), KeyRound::Done(vec![KeyId(1)]));
}

/// What a power cut leaves between the writes to a prelude.
#[test]
fn a_wrap_that_opens_is_never_overwritten_before_another_one_lies_there() {
    let id = QueueId::from_bytes([7; 16]);
    let first = KeyRing::generate(random_secret());
    let ring = added(&first).unwrap();
    let key = DataKey::from_random(random_secret());
    let old = first.wrap(&key, Purpose::Message, id, rand::random());
    let new = ring.wrap(&key, Purpose::Message, id, rand::random());
    let torn = |wrap: &WrappedKey| {
        let mut bytes = wrap.to_bytes();
        bytes[60..].fill(0);
        WrappedKey::from_bytes(&bytes).unwrap()
    };
    let slot = |slots: &[Option<&WrappedKey>]| {
        let slots = slots.iter().map(|slot| slot.cloned()).collect();
        let prelude = Prelude { format: crate::seal::Format::V2(Suite::default()), id, slots };
        let (slot, wrapped) = wrapped_again(&ring, &prelude).unwrap();
        assert_eq!(wrapped.key(), KeyId(2));
        assert_eq!(
            ring.unwrap(&wrapped, Purpose::Message, id).unwrap().bytes(),
            key.bytes(),
            "{slots:?}",
            slots = prelude.slots
        );
        slot
    };
    assert_eq!(slot(&[Some(&old), None]), 1);
    assert_eq!(slot(&[None, Some(&old)]), 0);
    assert_eq!(slot(&[Some(&old), Some(&torn(&new))]), 1, "the new one is torn");
    assert_eq!(slot(&[Some(&torn(&old)), Some(&new)]), 1, "the old one is half zeroed");
    assert_eq!(slot(&[Some(&old), Some(&new)]), 1, "both lie there");
    assert_eq!(slot(&[Some(&old)]), 0, "there is no other");
    assert_eq!(slot(&[Some(&old), Some(&torn(&new)), None]), 2);
}
