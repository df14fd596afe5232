//! A message that asks for more than the mailbox: nothing of it is shown before the proof.
use super::{
    assert_whole_page,
    world::{Kept, World},
};
use crate::{
    mail::Pickup,
    store::{Assurance, PeopleStore, Proof, ProofChange},
};
use argon2::{Argon2, PasswordHasher, password_hash::phc::PasswordHash};

const ANN: &str = "ann@clinic.example";
const MAIL: &[u8] = b"From: Bob <bob@example.org>\r\nSubject: Private\r\n\r\nThe-secret\r\n";

async fn asking(world: &World, kept: &Kept, proof: Proof) {
    let phrase: PasswordHash = Argon2::default().hash_password(b"bluestepsseven").unwrap();
    let phrase = (proof.kind != Pickup::Sms).then(|| phrase.to_string());
    let proof = Proof { phrase, ..proof };
    let change = ProofChange::new(kept.grant, None, proof);
    assert!(world.store.change_proof(change).await.unwrap());
}

fn doubtful(world: &World) -> Proof {
    Proof { doubt: Some(world.clock_now()), ..Proof::default() }
}

#[tokio::test]
async fn no_way_leads_to_a_message_before_its_proof() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    asking(&world, &kept, doubtful(&world)).await;
    let (page, place) = (kept.page(), format!("{}/prove", kept.page()));
    for end in [
        "",
        "/html",
        "/print",
        "/original.eml",
        "/attachments.zip",
        "/attachments/1",
        "/reply",
        "/forward",
        "/attachments/1/view",
        "/attachments/1/picture",
        "/attachments/1/thumbnail",
    ] {
        let answer = reader.get(&format!("{page}{end}")).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(place.as_str())),
            "{end}"
        );
    }
    for path in ["/inbox", "/inbox?q=secret", "/account/export.mbox"] {
        let text = reader.get(path).await.text();
        assert!(!text.contains("Private") && !text.contains("The-secret"), "{path}: {text}");
    }
    let form = reader.get(&place).await;
    assert_eq!(form.status, 200);
    assert_whole_page(&form.text(), true);
    assert!(form.text().contains("name=\"phrase\"") && !form.text().contains("Private"));
    assert!(world.grant_row(&kept).await.opened.is_none(), "nothing was opened");
}

#[tokio::test]
async fn the_phrase_opens_and_a_wrong_one_says_what_is_left() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    asking(&world, &kept, doubtful(&world)).await;
    let place = format!("{}/prove", kept.page());
    let wrong = reader.post(&place, &[("phrase", "blue steps")]).await;
    assert_eq!(wrong.status, 422);
    assert_whole_page(&wrong.text(), true);
    assert!(wrong.text().contains("Tries that are left: 9."), "{}", wrong.text());
    let right = reader.post(&place, &[("phrase", "Blue-Steps Seven")]).await;
    assert_eq!((right.status, right.header("location")), (303, Some(kept.page().as_str())));
    assert!(reader.get(&kept.page()).await.text().contains("The-secret"));
    assert_eq!(reader.get(&place).await.status, 303, "nothing is left to prove");
}

#[tokio::test]
async fn the_phrase_proves_the_account_whose_password_it_was_typed_with() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    asking(&world, &kept, doubtful(&world)).await;
    let account = async || world.store.account(&ANN.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(account().await.assurance, Assurance::Mailbox);
    let place = format!("{}/prove", kept.page());
    assert_eq!(reader.post(&place, &[("phrase", "blue steps seven")]).await.status, 303);
    assert_eq!(account().await.assurance, Assurance::Proved);
}

/// Whoever registered first has the password. The reader comes in by a mailed code, and shows the
/// phrase: that must open nothing for the other.
#[tokio::test]
async fn a_proof_after_a_mailed_code_opens_nothing_for_whoever_has_the_password() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut first = world.registered(ANN, &kept).await;
    asking(&world, &kept, Proof { kind: Pickup::Phrase, ..Proof::default() }).await;
    let place = format!("{}/prove", kept.page());
    let mut reader = world.browser();
    reader.post("/login", &[("email", ANN), ("by", "code")]).await;
    let code = world.mailed_code(ANN).await.unwrap();
    assert_eq!(reader.post("/verify", &[("code", &code)]).await.status, 303);
    assert_eq!(reader.post(&place, &[("phrase", "blue steps seven")]).await.status, 303);
    assert!(reader.get(&kept.page()).await.text().contains("The-secret"));
    let answer = first.get(&kept.page()).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some(place.as_str())));
    let account = world.store.account(&ANN.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(account.assurance, Assurance::Mailbox, "nor does a passkey added with it count");
}

#[tokio::test]
async fn ten_wrong_phrases_lock_the_message_and_the_page_says_so() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    asking(&world, &kept, Proof { kind: Pickup::Phrase, ..Proof::default() }).await;
    let place = format!("{}/prove", kept.page());
    for n in 0..10 {
        let typed = format!("guess number {n}");
        assert_eq!(reader.post(&place, &[("phrase", &typed)]).await.status, 422);
    }
    for _ in 0..2 {
        let page = reader.get(&place).await.text();
        assert!(page.contains("opens no more") && !page.contains("name=\"phrase\""), "{page}");
        reader.post(&place, &[("phrase", "blue steps seven")]).await;
    }
    assert_eq!(reader.get(&kept.page()).await.status, 303, "the right one comes too late");
}

#[tokio::test]
async fn each_need_has_its_page_and_another_s_message_has_none() {
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let other = world.keep("bob@else.example", MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    asking(&world, &kept, Proof { kind: Pickup::Sms, ..Proof::default() }).await;
    let place = format!("{}/prove", kept.page());
    let page = reader.get(&place).await;
    assert_whole_page(&page.text(), true);
    assert!(page.text().contains("name=\"code\"") && page.text().contains("name=\"send\""));
    // No number was given, no service is there, and no address inside can be told.
    let failed = reader.post(&place, &[("send", "yes")]).await;
    assert_whole_page(&failed.text(), true);
    assert_eq!(failed.status, 503);
    assert!(failed.text().contains("Please call the sender"), "{}", failed.text());
    assert_eq!(reader.post(&place, &[("code", "1234 5678")]).await.status, 422);
    assert_eq!(reader.get(&format!("{}/prove", other.page())).await.status, 404);
    let foreign = reader.post(&format!("{}/prove", other.page()), &[("phrase", "x")]).await;
    assert_eq!(foreign.status, 404);
}
