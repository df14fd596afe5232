//! Wrapped keys are exchanged in preludes.

use super::*;
use restante::seal::{KeyId, Prelude};

/// A body of either format that nobody opens: its prelude, then bytes.
fn body_of(n: u8, version: u8, length: usize) -> (Vec<u8>, WrappedKey) {
    let wrapped = wrap(n, version, 1);
    let mut out = [b"RSTV".as_slice(), &[version], id(n).as_bytes()].concat();
    if version == 2 {
        out.extend_from_slice(&[1, 2]);
    }
    out.extend_from_slice(&wrapped.to_bytes());
    if version == 2 {
        out.extend_from_slice(&[0; WrappedKey::LEN]);
    }
    let prelude = out.len();
    out.resize(prelude + length, n);
    (out, wrapped)
}
/// A wrap in that format by the ring's key of that number.
fn wrap(n: u8, version: u8, key: u32) -> WrappedKey {
    let mut ring = ring();
    for _ in 1..key {
        ring = ring.with_key(Zeroizing::new([key as u8; 32])).unwrap();
    }
    let wrapped = ring.wrap(&data_key(), seal::Purpose::Message, id(n), [key as u8; 24]);
    let bytes = wrapped.to_bytes();
    // Of format 1 the store reads the length alone.
    if version == 1 { WrappedKey::from_bytes(&bytes[1..]).unwrap() } else { wrapped }
}
async fn accept_body(s: &impl Store, n: u8, sealed: Vec<u8>) {
    let body = if sealed.len() <= SMALL {
        NewBody::Small(Bytes::from(sealed))
    } else {
        let mut writer = s.create(id(n)).await.unwrap();
        writer.write(Bytes::from(sealed)).await.unwrap();
        NewBody::At(writer.seal().await.unwrap())
    };
    s.accept(NewMessage { body, ..message(n, &["a@a.example"]) }).await.unwrap();
}
async fn slots(s: &impl Store, n: u8) -> Vec<Option<WrappedKey>> {
    Prelude::parse(&body(s, n, 0).await.unwrap()).unwrap().slots
}
async fn at_of(s: &impl Store, n: u8) -> Locator {
    s.message(id(n)).await.unwrap().unwrap().0.body
}
const SHAPES: [(u8, u8, usize); 4] =
    [(1, 2, 500), (2, 2, SMALL + 500), (3, 1, 500), (4, 1, SMALL + 500)];

pub(super) async fn a_key_is_wrapped_again_in_place_and_nothing_else_changes(s: &impl Store) {
    for (n, version, length) in SHAPES {
        let (sealed, first) = body_of(n, version, length);
        accept_body(s, n, sealed.clone()).await;
        let (at, second) = (at_of(s, n).await, wrap(n, version, 2));
        let slot = usize::from(version == 2);
        assert!(s.rewrap(id(n), &at, slot, &second).await.unwrap(), "{n}");
        let want = if version == 2 { vec![None, Some(second)] } else { vec![Some(second)] };
        assert_eq!(slots(s, n).await, want, "{n}");
        s.checkpoint().await.unwrap();
        let third = wrap(n, version, 3);
        for _ in 0..2 {
            assert!(s.rewrap(id(n), &at, 0, &third).await.unwrap(), "{n}: from its file");
            s.checkpoint().await.unwrap();
            assert_eq!(slots(s, n).await.first(), Some(&Some(third.clone())), "{n}");
            assert_eq!(slots(s, n).await.iter().flatten().count(), 1, "{n}");
        }
        let now = body(s, n, 0).await.unwrap();
        assert_eq!(now.len(), sealed.len(), "{n}");
        let length = Prelude::parse(&sealed).unwrap().length();
        assert!(now[length..] == sealed[length..], "{n}: what follows stays");
        assert!(memchr::memmem::find(&now, &first.to_bytes()).is_none(), "{n}");
        let refused = s.rewrap(id(n), &at, 2, &third).await;
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{n}: {refused:?}");
        let refused = s.rewrap(id(n), &at, 0, &wrap(n, 3 - version, 4)).await;
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{n}: {refused:?}");
        assert_eq!(slots(s, n).await.first(), Some(&Some(third)), "{n}: nothing was written");
    }
}

pub(super) async fn what_is_destroyed_gets_no_key_again(s: &impl Store) {
    for (n, version, length) in SHAPES {
        let (sealed, _) = body_of(n, version, length);
        accept_body(s, n, sealed).await;
        let at = at_of(s, n).await;
        s.delete(id(n), &at).await.unwrap();
        let again = wrap(n, version, 2);
        for _ in 0..2 {
            match s.rewrap(id(n), &at, 0, &again).await {
                Ok(done) => assert!(!done, "{n}"),
                Err(error) => assert!(matches!(error, StoreError::NotFound), "{n}: {error}"),
            }
            s.checkpoint().await.unwrap();
        }
        if let Ok(now) = body(s, n, 0).await {
            assert_eq!(Prelude::parse(&now).unwrap().wrapped().count(), 0, "{n}");
        }
    }
}

/// Destroying and wrapping again at the same time: whoever is first, no key is left.
pub(super) async fn a_key_never_comes_back_whoever_is_first(s: &impl Store) {
    for round in 0..10 {
        for (shape, version, length) in SHAPES {
            let n = 10 * (round + 1) + shape;
            accept_body(s, n, body_of(n, version, length).0).await;
            let (at, again) = (at_of(s, n).await, wrap(n, version, 2));
            let (delete, rewrap) =
                tokio::join!(s.delete(id(n), &at), s.rewrap(id(n), &at, 0, &again));
            delete.unwrap();
            // One that is destroyed while its prelude is read may read as damaged.
            let known = |e: &StoreError| matches!(e, StoreError::NotFound | StoreError::Corrupt(_));
            assert!(rewrap.as_ref().err().is_none_or(known), "{rewrap:?}");
            s.checkpoint().await.unwrap();
            if let Ok(now) = body(s, n, 0).await {
                assert_eq!(Prelude::parse(&now).unwrap().wrapped().count(), 0, "{n}");
            }
        }
    }
}

/// Copies the directory of an open store: what a kill at that moment leaves.
fn killed(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            killed(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
fn all_bytes(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        all.extend(if path.is_dir() { all_bytes(&path) } else { std::fs::read(path).unwrap() });
    }
    all
}

#[tokio::test]
async fn a_wrap_outlives_a_kill_and_the_old_one_is_nowhere_after_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    for (n, version, length) in SHAPES {
        accept_body(&s, n, body_of(n, version, length).0).await;
        s.rewrap(id(n), &at_of(&s, n).await, 0, &wrap(n, version, 2)).await.unwrap();
    }
    s.checkpoint().await.unwrap();
    for (n, version, _) in SHAPES {
        s.rewrap(id(n), &at_of(&s, n).await, 0, &wrap(n, version, 3)).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    killed(dir.path(), copy.path());
    let again = open(copy.path());
    for (n, version, _) in SHAPES {
        let mut want = vec![Some(wrap(n, version, 3))];
        want.resize(usize::from(version), None);
        assert_eq!(slots(&again, n).await, want, "{n}");
        assert_eq!(wrap(n, version, 3).key(), KeyId(3));
    }
    s.checkpoint().await.unwrap();
    let all = all_bytes(dir.path());
    for (n, version, _) in SHAPES {
        let lies = |key| memchr::memmem::find(&all, &wrap(n, version, key).to_bytes()).is_some();
        assert_eq!([1, 2, 3].map(lies), [false, false, true], "{n}");
    }
}
