//! One row for every route: what it answers to nobody, to the one it belongs to, and to somebody
//! else. A route that is added without its row fails here.
use super::super::routes::{Access, ROUTES, Route, Verb};
use super::world::{Browser, Kept, World};
use std::collections::BTreeSet;

const MAIL: &[u8] =
    b"From: a@example.org\r\nSubject: Private\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
--b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--b\r\nContent-Type: text/csv; name=x.csv\r\n\
Content-Disposition: attachment\r\n\r\n1,2\r\n--b--\r\n";
const OTHER: &[u8] = b"From: a@example.org\r\nSubject: Hello\r\n\r\nHello\r\n";
const ANN: &str = "ann@clinic.example";
const BOB: &str = "bob@else.example";

/// Verb and path; the answer to a visitor without a session, to its owner, and to somebody else who
/// is signed in. A POST is an empty form.
type Row = (&'static str, &'static str, u16, u16, u16);

const TO_SIGN_IN: u16 = 303;
const ROWS: &[Row] = &[
    ("GET", "/", 200, 200, 200),
    ("GET", "/assets/style.css", 200, 200, 200),
    ("GET", "/assets/passkey.js", 200, 200, 200),
    // A link leads on: to sign-in, to the message, or (somebody else's) to sign-in as its owner.
    ("GET", "/m/{token}", 200, 303, 200),
    ("GET", "/m/{token}/reset", 200, 200, 200),
    ("POST", "/register", 404, 404, 404),
    ("GET", "/verify", 303, 303, 303),
    ("POST", "/verify", 303, 303, 303),
    ("GET", "/login", 200, 303, 303),
    ("POST", "/login", 422, 422, 422),
    // No provider is configured here; a browser that set out for none comes back from none.
    ("POST", "/login/oidc", 404, 404, 404),
    ("GET", "/login/oidc/callback", 422, 422, 422),
    ("GET", "/reset", 200, 200, 200),
    ("POST", "/reset", 422, 422, 422),
    ("GET", "/check", 200, 200, 200),
    ("GET", "/account", TO_SIGN_IN, 200, 200),
    ("POST", "/account", 401, 422, 422),
    ("GET", "/inbox", TO_SIGN_IN, 200, 200),
    ("GET", "/inbox/{id}", TO_SIGN_IN, 200, 404),
    ("GET", "/inbox/{id}/html", TO_SIGN_IN, 303, 404),
    ("GET", "/inbox/{id}/attachments/{number}", TO_SIGN_IN, 200, 404),
    ("GET", "/inbox/{id}/attachments.zip", TO_SIGN_IN, 200, 404),
    ("GET", "/inbox/{id}/original.eml", TO_SIGN_IN, 200, 404),
    ("GET", "/inbox/{id}/print", TO_SIGN_IN, 200, 404),
    // Nothing is to be proved here: it leads on to the message.
    ("GET", "/inbox/{id}/prove", TO_SIGN_IN, 303, 404),
    ("POST", "/inbox/{id}/prove", 401, 303, 404),
    ("GET", "/inbox/{id}/reply", TO_SIGN_IN, 200, 404),
    ("POST", "/inbox/{id}/reply", 401, 422, 404),
    ("GET", "/inbox/{id}/forward", TO_SIGN_IN, 200, 404),
    ("POST", "/inbox/{id}/forward", 401, 422, 404),
    ("GET", "/compose", TO_SIGN_IN, 200, 200),
    ("POST", "/compose", 401, 422, 422),
    ("GET", "/sent", TO_SIGN_IN, 200, 200),
    ("GET", "/assets/upload.js", 200, 200, 200),
    ("GET", "/assets/logo", 404, 404, 404),
    // A picture is drawn from an attachment that is one; this one is none.
    ("GET", "/inbox/{id}/attachments/{number}/view", TO_SIGN_IN, 404, 404),
    ("GET", "/inbox/{id}/attachments/{number}/picture", TO_SIGN_IN, 404, 404),
    ("GET", "/inbox/{id}/attachments/{number}/thumbnail", TO_SIGN_IN, 404, 404),
    ("GET", "/account/log", TO_SIGN_IN, 200, 200),
    ("GET", "/account/export.mbox", TO_SIGN_IN, 200, 200),
    // Opened by its ticket alone, whoever comes; this is none.
    ("GET", "/framed/{ticket}", 410, 410, 410),
    // What belongs to a message is no upload; whose uploads are whose: `uploads`.
    ("GET", "/uploads", TO_SIGN_IN, 200, 200),
    ("POST", "/uploads", 401, 422, 422),
    ("GET", "/uploads/{id}", TO_SIGN_IN, 404, 404),
    ("POST", "/uploads/{id}", 401, 404, 404),
    ("POST", "/uploads/{id}/remove", 401, 404, 404),
    // Last: it ends the session.
    ("POST", "/logout", 401, 303, 303),
];

fn method(route: &Route) -> &'static str {
    match route.verb {
        Verb::Get => "GET",
        Verb::Post => "POST",
    }
}
fn path_of(path: &str, kept: &Kept) -> String {
    let id = kept.grant.to_string();
    path.replace("{token}", &kept.token).replace("{id}", &id).replace("{number}", "1")
}
async fn status(browser: &mut Browser<'_>, method: &str, path: &str) -> u16 {
    browser.send(method, path, &[], "").await.status
}

#[tokio::test]
async fn every_route_has_its_row_and_answers_as_it_says() {
    let table: BTreeSet<_> = ROUTES.iter().map(|route| (method(route), route.path)).collect();
    let rows: BTreeSet<_> = ROWS.iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(table, rows, "a route needs its row here, and a row its route");
    assert_eq!((table.len(), rows.len()), (ROUTES.len(), ROWS.len()), "none twice");

    let world = World::new();
    let (ours, theirs) = (world.keep(ANN, MAIL).await, world.keep(BOB, OTHER).await);
    let mut owner = world.registered(ANN, &ours).await;
    let mut other = world.registered(BOB, &theirs).await;
    for (method, path, nobody, own, foreign) in ROWS {
        let place = path_of(path, &ours);
        let before = world.snapshot();
        assert_eq!(status(&mut world.browser(), method, &place).await, *nobody, "{method} {path}");
        assert_eq!(world.snapshot(), before, "{method} {path}: nothing is changed for nobody");
        let answer = other.send(method, &place, &[], "").await;
        assert_eq!(answer.status, *foreign, "{method} {path}: somebody else");
        assert!(!answer.text_if_any().contains("Private"), "{method} {path}");
        assert_eq!(status(&mut owner, method, &place).await, *own, "{method} {path}: its owner");
    }
    for route in ROUTES.iter().filter(|route| route.access == Access::SignedIn) {
        let row = ROWS.iter().find(|row| (row.0, row.1) == (method(route), route.path)).unwrap();
        assert!(matches!(row.2, TO_SIGN_IN | 401), "{} is closed to nobody", route.path);
        let whose = route.path.contains("{id}");
        assert_eq!(
            row.4 == 404,
            whose,
            "{}: what is somebody's is not there for others",
            route.path
        );
    }
}

#[tokio::test]
async fn a_form_sent_from_elsewhere_is_refused_on_every_route_and_changes_nothing() {
    let elsewhere: &[(&str, &[(&str, &str)])] = &[
        ("another site", &[("sec-fetch-site", "cross-site")]),
        ("another host of our domain", &[("sec-fetch-site", "same-site")]),
        ("an older browser", &[("origin", "https://evil.example")]),
        ("a sandboxed frame", &[("origin", "null")]),
        (
            "a lie in one of two",
            &[("sec-fetch-site", "cross-site"), ("origin", "http://portal.test")],
        ),
    ];
    let world = World::new();
    let kept = world.keep(ANN, MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    reader.get(&kept.page()).await;
    let before = world.snapshot();
    let posts = ROUTES.iter().filter(|route| route.verb == Verb::Post);
    for route in posts {
        for (whence, headers) in elsewhere {
            for form in ["", "action=sign-out-everywhere&email=ann%40clinic.example&by=code"] {
                let answer = reader.send("POST", &path_of(route.path, &kept), headers, form).await;
                assert_eq!(answer.status, 403, "{} from {whence}", route.path);
            }
        }
    }
    assert_eq!(world.snapshot(), before);
    assert_eq!(reader.get("/inbox").await.status, 200, "still signed in");
}
