//! What every store promises an operator: orders take effect on who is not being worked on, and on
//! nobody else.

use super::{
    Store, at, body, claim, claim_nothing, claim_one, delivered, finish, gone, grant, granted, id,
    is_fenced, message, next, open, outcome, settle, state, trusted,
};
use jiff::SignedDuration;
use restante::store::{
    Order, OrderKind,
    OrderKind::{Hold, Release, Remove, Retry},
    Ordered, Outcome, QueueStore, RecipientState, StoreError, Totals,
};

fn order(n: u8, kind: OrderKind, indexes: &[u16]) -> Order {
    Order { id: id(n), indexes: indexes.iter().copied().collect(), kind, spawn: Vec::new() }
}
async fn give(s: &impl Store, n: u8, kind: OrderKind, indexes: &[u16]) -> Ordered {
    s.order(order(n, kind, indexes), at(20)).await.unwrap()
}
fn changed(indexes: &[u16]) -> Ordered {
    Ordered { changed: indexes.to_vec(), busy: Vec::new() }
}
fn busy(indexes: &[u16]) -> Ordered {
    Ordered { changed: Vec::new(), busy: indexes.to_vec() }
}
const HELD_UNTIL_0: fn() -> RecipientState = || RecipientState::Held { next: at(0) };

pub(super) async fn what_is_held_rests_until_it_is_released(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@a.example"])).await.unwrap();
    assert_eq!(give(s, 1, Hold, &[0, 1, 9]).await, changed(&[0, 1]), "9 is nobody");
    assert_eq!(give(s, 1, Hold, &[0]).await, changed(&[]), "it is held already");
    assert_eq!(state(s, 1, 0).await, HELD_UNTIL_0());
    assert!(claim_nothing(s, 5000).await, "held mail is never due");
    assert_eq!(next(s).await, None);
    let t = s.totals().await.unwrap();
    assert_eq!((t.active, t.held, t.oldest), (0, 2, None));
    assert!(gone(s, 5000).await.is_empty(), "its body is needed");
    assert_eq!(give(s, 1, Retry, &[0]).await, changed(&[]), "held mail is not tried");
    assert_eq!(give(s, 1, Release, &[1]).await, changed(&[1]));
    assert_eq!(give(s, 1, Release, &[1]).await, changed(&[]), "it is not held");
    let claimed = claim_one(s, 1).await;
    let got: Vec<_> = claimed.recipients.iter().map(|r| (r.index, r.attempts)).collect();
    assert_eq!(got, [(1, 0)], "an order is no attempt");
    let t = s.totals().await.unwrap();
    assert_eq!((t.active, t.held, t.oldest), (1, 1, Some(at(1))));
}

pub(super) async fn faults_are_counted_until_a_release(s: &impl Store) {
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    let faults = async || s.message(id(1)).await.unwrap().unwrap().1[0].faults;
    let held = RecipientState::Held { next: at(2) };
    let rows = [(3, RecipientState::Waiting { next: at(2) }, "kept"), (5, held, "set aside")];
    for (count, state, reason) in rows {
        let claimed = claim_one(s, 5).await;
        let broken = Outcome { faults: count, ..outcome(0, state) };
        s.settle(settle(&claimed, vec![broken])).await.unwrap();
        assert_eq!(faults().await, count, "{reason}");
        give(s, 1, Retry, &[0]).await;
        assert_eq!(faults().await, count, "{reason}: a retry forgets nothing");
    }
    give(s, 1, Release, &[0]).await;
    assert_eq!(faults().await, 0, "who is released begins anew");
}

pub(super) async fn a_retry_is_due_at_once_and_wakes_the_worker(s: &impl Store) {
    let arrivals = s.arrivals();
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    arrivals.notified().await;
    let waiting = |next| RecipientState::Waiting { next: at(next) };
    let claimed = claim_one(s, 1).await;
    s.settle(settle(&claimed, vec![outcome(0, waiting(900))])).await.unwrap();
    arrivals.notified().await;
    assert_eq!(give(s, 1, Retry, &[0]).await, changed(&[0]));
    arrivals.notified().await;
    assert_eq!(state(s, 1, 0).await, waiting(20), "the time of the order");
    assert_eq!(next(s).await, Some(at(20)));
    let claimed = claim_one(s, 20).await;
    assert_eq!(claimed.recipients[0].attempts, 1);
    s.settle(settle(&claimed, vec![outcome(0, waiting(5))])).await.unwrap();
    give(s, 1, Retry, &[0]).await;
    assert_eq!(state(s, 1, 0).await, waiting(5), "what is due keeps its place");
}

pub(super) async fn what_is_removed_ends_there(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@b.example"])).await.unwrap();
    give(s, 1, Hold, &[1]).await;
    assert_eq!(give(s, 1, Remove, &[0]).await, changed(&[0]));
    assert!(gone(s, 30).await.is_empty(), "one is still held");
    assert_eq!(give(s, 1, Remove, &[0, 1]).await, changed(&[1]), "nobody ends twice");
    for index in 0..2 {
        assert_eq!(state(s, 1, index).await, RecipientState::Removed { at: at(20) });
    }
    for kind in [Hold, Release, Retry, Remove] {
        assert_eq!(give(s, 1, kind, &[0, 1]).await, changed(&[]), "{kind:?} after the end");
    }
    assert!(claim_nothing(s, 5000).await);
    let (row, _) = s.message(id(1)).await.unwrap().unwrap();
    assert_eq!(row.done, Some(at(20)));
    let nothing = Totals { segments: s.totals().await.unwrap().segments, ..Totals::default() };
    assert_eq!(s.totals().await.unwrap(), nothing);
    assert_eq!(gone(s, 30).await, [1], "nobody needs the body");
    assert_eq!(s.purge(trusted(21), SignedDuration::ZERO, 9).await.unwrap(), 1);
    let gone = s.order(order(1, Remove, &[0]), at(20)).await;
    assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
}

pub(super) async fn an_order_leaves_alone_who_is_being_delivered(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@b.example"])).await.unwrap();
    let claims = claim(s, 1).await;
    let of = |index| claims.iter().find(|c| c.recipients[0].index == index).unwrap();
    for kind in [Hold, Retry, Remove] {
        assert_eq!(give(s, 1, kind, &[0, 1]).await, busy(&[0, 1]), "{kind:?}");
    }
    s.release(of(1).token).await.unwrap();
    let some = Ordered { changed: vec![1], busy: vec![0] };
    assert_eq!(give(s, 1, Remove, &[0, 1]).await, some);
    s.settle(settle(of(0), vec![outcome(0, delivered())])).await.unwrap();
    assert_eq!(state(s, 1, 0).await, delivered(), "the attempt's outcome counts");
    let late = settle(of(1), vec![outcome(1, delivered())]);
    assert!(is_fenced(s.settle(late).await), "it was given back before");
    assert_eq!(state(s, 1, 1).await, RecipientState::Removed { at: at(20) });
    assert_eq!(gone(s, 30).await, [1]);
}

pub(super) async fn a_removal_with_a_report_is_whole_or_not_at_all(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@b.example"])).await.unwrap();
    let leased = claim(s, 1).await.into_iter().find(|c| c.recipients[0].index == 0).unwrap();
    let report = || vec![message(2, &["sender@example.org"])];
    let both = Order { spawn: report(), ..order(1, Remove, &[0, 1]) };
    let refused = s.order(both, at(20)).await.unwrap();
    assert!(refused.changed.is_empty() && refused.busy.contains(&0), "{refused:?}");
    assert!(s.message(id(2)).await.unwrap().is_none(), "no report of what did not happen");
    assert_eq!(state(s, 1, 1).await, RecipientState::Waiting { next: at(0) });
    s.release(leased.token).await.unwrap();
    let one = Order { spawn: report(), ..order(1, Remove, &[0]) };
    assert_eq!(s.order(one, at(20)).await.unwrap(), changed(&[0]));
    assert_eq!(body(s, 2, 0).await.unwrap(), vec![2; 500], "the report came with it");
    let again =
        Order { spawn: vec![message(3, &["sender@example.org"])], ..order(1, Remove, &[0]) };
    assert_eq!(s.order(again, at(20)).await.unwrap(), changed(&[]));
    assert!(s.message(id(3)).await.unwrap().is_none(), "nobody is reported twice");
}

pub(super) async fn a_grant_is_none_of_the_queues_business(s: &impl Store) {
    finish(s, 1, "a@a.example", granted(0, grant(9, 1, "a@a.example"))).await;
    assert_eq!(give(s, 1, Remove, &[0]).await, changed(&[]));
    assert!(gone(s, 30).await.is_empty(), "the grant lives");
    s.accept(message(2, &["a@a.example", "b@b.example"])).await.unwrap();
    for c in claim(s, 1).await {
        match c.recipients[0].index {
            0 => {
                let sealed = granted(0, grant(8, 2, "a@a.example"));
                s.settle(settle(&c, vec![sealed])).await.unwrap();
            }
            _ => s.release(c.token).await.unwrap(),
        }
    }
    assert_eq!(give(s, 2, Remove, &[0, 1]).await, changed(&[1]));
    assert!(gone(s, 30).await.is_empty(), "the other's grant needs the body");
}

#[tokio::test]
async fn orders_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.accept(message(1, &["a@a.example", "b@b.example", "c@c.example"])).await.unwrap();
    give(&store, 1, Hold, &[0]).await;
    give(&store, 1, Remove, &[1]).await;
    let counted = store.totals().await.unwrap();
    drop(store);
    let store = open(dir.path());
    // What segments take includes what was laid out ahead, which a start does not tell from the rest.
    let segments = store.totals().await.unwrap().segments;
    assert_eq!(store.totals().await.unwrap(), Totals { segments, ..counted.clone() });
    assert_eq!((counted.active, counted.held), (1, 1));
    assert_eq!(claim_one(&store, 5000).await.recipients[0].index, 2);
    assert_eq!(give(&store, 1, Release, &[0]).await, changed(&[0]));
    assert_eq!(claim_one(&store, 5000).await.recipients[0].index, 0);
}
