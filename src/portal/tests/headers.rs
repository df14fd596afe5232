//! What every answer tells the browser, held against the OWASP Secure Headers project's list
//! (headers to add, headers to leave out), for every route of the table.
use super::super::routes::{ROUTES, Verb};
use super::world::{Answer, PASSWORD, World};

const MAIL: &[u8] =
    b"From: a@example.org\r\nSubject: Private\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
--b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--b\r\nContent-Type: text/csv; name=x.csv\r\n\
Content-Disposition: attachment\r\n\r\n1,2\r\n--b--\r\n";
const ANN: &str = "ann@clinic.example";

/// What a header must be.
enum Must {
    /// On every answer the same.
    Be(&'static str),
    /// As the route asks.
    Suit(fn(&str, &str) -> bool),
    /// On no answer.
    NotBe,
}
use Must::{Be, NotBe, Suit};

fn is_asset(path: &str) -> bool {
    path.starts_with("/assets/")
}
/// What a message brought along, shown or downloaded as it came.
fn is_foreign(path: &str) -> bool {
    let file = path.contains("/attachments") && !path.ends_with("/view");
    file || path.ends_with(".eml") || path.ends_with(".mbox") || is_framed(path)
}
fn is_framed(path: &str) -> bool {
    path.starts_with("/framed/")
}
fn directive<'a>(csp: &'a str, name: &str) -> Option<&'a str> {
    let mut parts = csp.split(';').map(str::trim);
    parts.find_map(|part| part.strip_prefix(name)).map(str::trim)
}
fn csp_suits(path: &str, csp: &str) -> bool {
    // A message's own HTML may style itself: it stands in a sandbox, where nothing can be sent or
    // loaded. Our own pages hold neither script nor style of their own.
    let inline = csp.contains("'unsafe-inline'");
    let styled = directive(csp, "style-src") == Some("'unsafe-inline'");
    directive(csp, "default-src") == Some("'none'")
        && matches!(directive(csp, "script-src"), None | Some("'self'"))
        && directive(csp, "script-src").is_some() == uploads(path)
        && directive(csp, "connect-src").is_some() == uploads(path)
        && !csp.contains("unsafe-eval")
        && !csp.contains("http:")
        && (!inline || is_framed(path) && styled)
        && (is_foreign(path) || directive(csp, "frame-ancestors") == Some("'none'"))
        && (is_foreign(path) || directive(csp, "base-uri") == Some("'none'"))
        && (is_foreign(path) || directive(csp, "form-action") == Some("'self'"))
        && csp.starts_with("sandbox") == is_foreign(path)
}
/// The writing form sends files ahead by a script of ours.
fn uploads(path: &str) -> bool {
    ["/reply", "/forward", "/compose"].iter().any(|end| path.ends_with(end))
}
fn cache_suits(path: &str, value: &str) -> bool {
    value == if is_asset(path) { "public, max-age=3600" } else { "no-store" }
}
fn frame_suits(path: &str, value: &str) -> bool {
    value == if is_framed(path) { "SAMEORIGIN" } else { "DENY" }
}
fn permissions_suit(_: &str, value: &str) -> bool {
    ["camera=()", "microphone=()", "geolocation=()", "payment=()", "usb=()", "display-capture=()"]
        .iter()
        .all(|part| value.contains(part))
        && value.contains("publickey-credentials-get=(self)")
}

const LIST: &[(&str, Must, &str)] = &[
    (
        "strict-transport-security",
        Be("max-age=31536000"),
        "a year of https alone; not includeSubDomains: hosts under the portal's are not ours to bind",
    ),
    (
        "content-security-policy",
        Suit(csp_suits),
        "own files alone, nothing inline, no frame of ours",
    ),
    ("x-content-type-options", Be("nosniff"), "an attachment is what we say it is"),
    ("x-frame-options", Suit(frame_suits), "for browsers that do not know frame-ancestors"),
    (
        "referrer-policy",
        Be("same-origin"),
        "no other site learns where a reader came from; no-referrer, as the list has it, makes older \
         browsers send Origin: null with our own forms, which we refuse",
    ),
    ("cross-origin-opener-policy", Be("same-origin"), "windows of others have no hold of ours"),
    ("cross-origin-resource-policy", Be("same-origin"), "no other site embeds what we serve"),
    (
        "cross-origin-embedder-policy",
        Be("require-corp"),
        "nor do we embed what another did not offer",
    ),
    ("permissions-policy", Suit(permissions_suit), "no device, no place; passkeys for ourselves"),
    ("cache-control", Suit(cache_suits), "no page stays on a shared computer"),
    ("x-permitted-cross-domain-policies", Be("none"), "no plugin's policy file"),
    ("x-dns-prefetch-control", Be("off"), "a message's links are not looked up by reading it"),
    ("x-xss-protection", NotBe, "deprecated: its filter made holes of its own"),
    ("expect-ct", NotBe, "deprecated"),
    ("public-key-pins", NotBe, "deprecated"),
    ("pragma", NotBe, "Cache-Control says it"),
    ("server", NotBe, "names no software"),
    ("x-powered-by", NotBe, "names no software"),
    ("via", NotBe, "names no software"),
    ("x-aspnet-version", NotBe, "names no software"),
    ("access-control-allow-origin", NotBe, "nothing is for scripts of others"),
];

fn judge(path: &str, answer: &Answer) {
    // Where a message's part can't be had, there is a page of ours in its place.
    let framed = is_framed(path) && answer.status == 410;
    let path = if matches!(answer.status, 200 | 422) || is_asset(path) || framed {
        path
    } else {
        "(a page of ours)"
    };
    for (name, must, why) in LIST {
        let held = answer.header(name);
        match (must, held) {
            (Be(value), Some(held)) => assert_eq!(held, *value, "{path}: {name}: {why}"),
            (Suit(suits), Some(held)) => {
                assert!(suits(path, held), "{path}: {name}: {held}: {why}")
            }
            (NotBe, None) => {}
            (NotBe, Some(held)) => panic!("{path}: {name}: {held}: {why}"),
            (Be(_) | Suit(_), None) => panic!("{path} has no {name}: {why}"),
        }
        let times = answer.headers.iter().filter(|(held, _)| held == name).count();
        assert!(times <= 1, "{path}: {name} {times} times");
    }
    for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
        // RFC 6265bis: the prefix makes a browser refuse it without Secure, or with a Domain.
        assert!(cookie.starts_with("__Host-"), "{path}: {cookie}");
        for part in ["; Path=/", "; HttpOnly", "; Secure"] {
            assert!(cookie.contains(part), "{path}: {cookie}");
        }
        // Lax, not Strict: a reader comes from a link in the mail, and from a sign-in elsewhere.
        assert!(cookie.contains("; SameSite=Lax"), "{path}: {cookie}");
        assert!(!cookie.contains("Domain"), "{path}: {cookie}");
    }
}

#[tokio::test]
async fn every_answer_holds_the_owasp_list() {
    let world = World::at("https://portal.example");
    let kept = world.keep(ANN, MAIL).await;
    let mut reader = world.registered(ANN, &kept).await;
    reader.get(&kept.page()).await;
    let id = kept.grant.to_string();
    for route in ROUTES {
        let path = route
            .path
            .replace("{token}", &kept.token)
            .replace("{id}", &id)
            .replace("{number}", "1");
        let methods: &[&str] = match route.verb {
            Verb::Get => &["GET", "HEAD", "PUT"],
            Verb::Post => &["POST"],
        };
        for method in methods {
            judge(route.path, &world.browser().send(method, &path, &[], "").await);
            if route.path == "/logout" {
                continue;
            }
            judge(route.path, &reader.send(method, &path, &[], "").await);
        }
    }
    for (path, answer) in [
        ("/nowhere", reader.get("/nowhere").await),
        ("/login", reader.send("POST", "/login", &[("origin", "https://evil.example")], "").await),
        ("/login", reader.post("/login", &[("email", &"a".repeat(70_000))]).await),
        ("/register", world.browser().post("/register", &super::world::registration("x")).await),
    ] {
        assert!(answer.status >= 400, "{path}");
        judge(path, &answer);
    }
    let out = reader.post("/logout", &[]).await;
    judge("/logout", &out);
    assert_eq!(out.header("clear-site-data"), Some("\"cache\", \"storage\""), "the way back");
    let again = world.browser().post("/login", &[("email", ANN), ("password", PASSWORD)]).await;
    assert_eq!(again.status, 303);
    judge("/login", &again);
}

#[tokio::test]
async fn pages_with_a_script_have_our_own_and_no_other() {
    let world = World::at("https://portal.example");
    let answer = world.browser().get("/login?by=passkey").await;
    let csp = answer.header("content-security-policy").unwrap();
    assert_eq!(directive(csp, "script-src"), Some("'self'"));
    assert_eq!(directive(csp, "default-src"), Some("'none'"));
    assert!(!csp.contains("unsafe") && !csp.contains("http"), "{csp}");
    let handler = regex::Regex::new(r"\son[a-z]+\s*=").unwrap();
    assert!(!handler.is_match(&answer.text()), "no handler inside the page");
}
