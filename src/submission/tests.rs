//! Letters without HTTP: files, quotas and places, over the store in memory.

use super::*;
use crate::{
    clock::{Clock, ClockGuard},
    mail::{
        QueueId,
        header::Fields,
        notice::{Letterhead, Templates},
    },
    policies::Policies,
    policy::PolicySet,
    seal::KeyRing,
    store::{SessionFacts, memory::MemoryStore},
    vault::{AccessAnswer, NoticeSettings},
};
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use mail_parser::{MessageParser, MimeHeaders};
use std::{collections::BTreeMap, convert::Infallible};

#[derive(Debug)]
struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }
    fn new_id(&self) -> QueueId {
        QueueId::new(1_795_000_000_000, rand::random())
    }
}
#[derive(Debug)]
struct NoRules(Arc<PolicySet>);
impl Policies for NoRules {
    fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0)
    }
}

const LARGEST: u64 = 1 << 20;

fn service() -> Submission {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(Fixed));
    let notices = NoticeSettings {
        head: Letterhead {
            organization: "Example Health".into(),
            support: "helpdesk@example.org".into(),
            from: "secure@example.org".parse().unwrap(),
            subject: None,
        },
        templates: Templates::new(&BTreeMap::new()).unwrap(),
        portal_url: "https://portal.test".into(),
        retention: SignedDuration::from_hours(24),
        note: None,
    };
    let ring = KeyRing::generate(Zeroizing::new(rand::random()));
    let (queue, bodies) = (store.clone(), store.clone());
    let vault = Vault::new(
        queue,
        bodies,
        store.clone(),
        store,
        ring,
        Arc::new(ClockGuard::new(clock.clone(), None)),
        notices,
    );
    let rules = Arc::new(NoRules(Arc::new(PolicySet::parse(&[], clock.now()).unwrap().0)));
    let door = Door::new(vault.clone(), vault.queue.clone(), rules);
    let settings = SubmissionSettings {
        domains: vec!["example.org".parse().unwrap()],
        max_size: LARGEST,
        refuse_files: vec!["*.exe".into()],
        languages: Arc::new(Languages::new("en", &[]).unwrap()),
    };
    Submission::new(settings, vault, door)
}

/// An account that is not in the store: the service asks for none.
fn account(address: &str, number: u8) -> Account {
    let mut account = Account::new(address.parse().unwrap(), [number; 16], Fixed.now());
    "Ann".clone_into(&mut account.first_name);
    "Ode".clone_into(&mut account.last_name);
    account
}

fn draft<'a>(service: &Submission, to: &str) -> Draft<'a> {
    Draft {
        recipients: service.forward(to).unwrap(),
        subject: "Hello".into(),
        text: "Dear all".into(),
        priority: Priority::Normal,
        references: Vec::new(),
        forwarded: None,
        uploads: Vec::new(),
    }
}

async fn send(
    service: &Submission,
    account: &Account,
    draft: &Draft<'_>,
    enclosed: Option<Enclosed>,
) -> Result<Vec<u8>, SubmissionError> {
    let admitted = service.admit(draft, account)?;
    let author = Author { account, client: None };
    let own = service.send(admitted, author, draft, enclosed).await?;
    let AccessAnswer::Granted(access) =
        service.vault.access(own, account, &SessionFacts::default()).await?
    else {
        panic!("the copy is its author's")
    };
    let (row, _) = service.vault.index(&access).await?;
    let mut content = service.vault.read(&access, 0..row.size).await?;
    let mut all = Vec::new();
    while let Some(piece) = content.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

fn pieces(content: &[u8]) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Unpin {
    let all: Vec<_> = content.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(all)
}

#[tokio::test]
async fn a_letter_brings_its_files_whichever_way_they_came() {
    let service = service();
    let ann = account("ann@clinic.example", 1);
    let content: Vec<u8> = (0..200_003_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    let new =
        NewUpload { name: "C:\\x\\ahead.pdf", kind: "application/pdf", size: 200_003, mark: "" };
    let upload = service.uploads().begin(&ann, &new).await.unwrap();
    let appended = service.uploads().append(&upload, 0, pieces(&content)).await.unwrap();
    assert!(matches!(appended, Appended::Taken(Progress { offset: 200_003, whole: true })));
    let mut files = service.enclose(&ann).await.unwrap();
    for (name, size) in [("one.txt", 100_001), ("empty", 0), ("two.txt", 77)] {
        files.file(name, "application/octet-stream").unwrap();
        for piece in content[..size].chunks(7_000) {
            files.write(piece).await.unwrap();
        }
    }
    let enclosed = files.end().await.unwrap();
    let letter = Draft { uploads: vec![upload.clone()], ..draft(&service, "nurse@example.org") };
    let message = send(&service, &ann, &letter, Some(enclosed)).await.unwrap();
    let parsed = MessageParser::new().parse(&message).unwrap();
    let parts: Vec<_> =
        parsed.attachments().map(|p| (p.attachment_name().unwrap(), p.contents())).collect();
    let expected: [(&str, &[u8]); 4] = [
        ("one.txt", &content[..100_001]),
        ("empty", b""),
        ("two.txt", &content[..77]),
        ("ahead.pdf", &content),
    ];
    assert!(parts == expected, "in their order, as they were");
    assert!(service.uploads().find(&ann, upload.id()).is_none(), "it went with its letter");
}

#[tokio::test]
async fn an_author_outside_is_marked_as_one() {
    let service = service();
    for (address, chosen, shown) in [
        ("ann@clinic.example", "Ann", "\"Ann Ode (outside, by portal)\" <ann@clinic.example>"),
        (
            "ann@clinic.example",
            "IT Helpdesk <it@example.org>",
            "\"IT Helpdesk <it@example.org> Ode (outside, by portal)\" <ann@clinic.example>",
        ),
        ("nurse@example.org", "Joy", "\"Joy Ode\" <nurse@example.org>"),
    ] {
        let mut author = account(address, 1);
        chosen.clone_into(&mut author.first_name);
        let letter = draft(&service, "doctor@example.org");
        let message = send(&service, &author, &letter, None).await.unwrap();
        let fields = Fields::parse(&message);
        assert_eq!(fields.all("From"), [shown]);
        assert_eq!(fields.all("Sender"), ["<secure@example.org>"]);
    }
    let mut long = account("ann@clinic.example", 1);
    long.first_name = "x".repeat(500);
    let message =
        send(&service, &long, &draft(&service, "doctor@example.org"), None).await.unwrap();
    let name = Fields::parse(&message).from_name().unwrap();
    assert!(name.ends_with("x (outside, by portal)"), "no name pushes the mark out: {name}");
}

#[tokio::test]
async fn slow_files_hold_no_place_from_others() {
    let service = service();
    let (mut slow, mut flows) = (Vec::new(), Vec::new());
    for number in 0..6 {
        slow.push(account(&format!("slow{number}@clinic.example"), number));
    }
    for account in &slow {
        for _ in 0..3 {
            let mut files = service.enclose(account).await.unwrap();
            files.file("slow.pdf", "application/pdf").unwrap();
            files.write(b"an octet, and no more comes").await.unwrap();
            flows.push(files);
        }
        let more = service.enclose(account).await;
        assert!(matches!(more, Err(SubmissionError::Busy)), "no account has more than its own");
        let new = NewUpload { name: "a", kind: "", size: 9, mark: "" };
        let upload = service.uploads().begin(account, &new).await.unwrap();
        let appended = service.uploads().append(&upload, 0, pieces(b"x")).await.unwrap();
        assert!(matches!(appended, Appended::Busy), "files that come ahead count among them");
    }
    let ann = account("ann@clinic.example", 100);
    let mut files = service.enclose(&ann).await.unwrap();
    files.file("a.pdf", "application/pdf").unwrap();
    files.write(&[7; 100_000]).await.unwrap();
    let enclosed = files.end().await.unwrap();
    let letter = draft(&service, "nurse@example.org");
    send(&service, &ann, &letter, Some(enclosed)).await.unwrap();
    drop(flows);
    assert!(service.enclose(&slow[0]).await.is_ok(), "what ended gives its flow back");
}

#[tokio::test]
async fn what_a_letter_may_not_bring_is_refused() {
    let service = service();
    let ann = account("ann@clinic.example", 1);
    let mut files = service.enclose(&ann).await.unwrap();
    let refused = files.file("../tool.EXE. ", "");
    assert!(matches!(refused, Err(SubmissionError::RefusedFile(name)) if name == "tool.EXE."));
    files.file("large", "").unwrap();
    files.write(&vec![0; LARGEST as usize]).await.unwrap();
    assert!(matches!(files.write(b"x").await, Err(SubmissionError::TooLarge)));
    let new = NewUpload { name: "half", kind: "", size: 10, mark: "" };
    let half = service.uploads().begin(&ann, &new).await.unwrap();
    let letter = Draft { uploads: vec![half], ..draft(&service, "nurse@example.org") };
    let unsent = send(&service, &ann, &letter, None).await;
    assert!(matches!(unsent, Err(SubmissionError::UploadGone)), "not whole");
    let list: Vec<_> = (0..50).map(|n| format!("a{n}@example.org")).collect();
    let letter = draft(&service, &list.join(","));
    for sent in [true, false] {
        let admitted = service.admit(&letter, &ann);
        assert_eq!(admitted.is_ok(), sent, "a hundred recipients an hour, with the one above");
    }
}
