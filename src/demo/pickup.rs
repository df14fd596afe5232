//! How the stranger comes by the message: the link, the registration, the code, the page, the
//! attachment.

use super::{
    letters::{FILE, FILE_NAME, Letter, STRANGER},
    reader::{Page, Reader},
    stage::Stage,
    tell::{Failure, Told, chapter, claim, fact},
};
use crate::cli::out;

/// A password that the portal accepts.
const PASSWORD: &str = "walnut ferry candle orbit";
/// Mails at the stranger's host before the code: two notices.
const NOTICES: usize = 2;

/// The token in a notice's link.
pub(super) fn token(notice: &str) -> Told<&str> {
    let token = notice.split_once("/m/").map(|(_, rest)| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    });
    token.filter(|t| !t.is_empty()).ok_or_else(|| Failure::new("the notice has no link"))
}

/// Waits for a person: shows the link, and each code as it is mailed. Ends only by being dropped,
/// or with a fault.
pub(super) async fn by_hand(stage: &Stage, token: &str) -> Told {
    chapter("Now you: open this link in a browser");
    fact("link", format_args!("http://{}/m/{token}", stage.portal));
    fact("hint", format_args!("any name, any password of 12 characters or more: \"{PASSWORD}\""));
    fact("code", "comes by mail to the stranger's box and is shown here; Ctrl-C ends the demo");
    let (mut mails, mut shown) = (stage.stranger.watch(), NOTICES);
    loop {
        let fresh: Vec<_> = {
            let all = mails.borrow_and_update();
            let fresh = all.iter().skip(shown).cloned().collect();
            shown = all.len();
            fresh
        };
        for code in fresh.iter().filter_map(|mail| mail.code()) {
            fact("code", code);
        }
        mails.changed().await.map_err(Failure::at("the stranger's box"))?;
    }
}

/// Walks the whole way as a reader would.
pub(super) async fn walk(stage: &Stage, letter: &Letter, token: &str) -> Told {
    chapter("7. The stranger picks it up");
    let mut reader = Reader::new(stage.portal);
    let page = reader.get(&format!("/m/{token}")).await?;
    claim(
        page.status == 200 && page.text().contains(STRANGER) && !page.text().contains(letter.line),
        format_args!("the link shows nothing of the message, it asks {STRANGER} to register"),
    )?;
    let verify = register(&mut reader, token).await?;
    let mails = stage.stranger.mails(NOTICES + 1, "the code mail").await?;
    let code = mails.iter().skip(NOTICES).find_map(|mail| mail.code());
    let code = code.ok_or_else(|| Failure::new("the code mail has no code of eight digits"))?;
    claim(verify == "/verify", format_args!("the code {code} came by mail to the box"))?;
    let page = reader.post("/verify", &[("code", &code)]).await?;
    let message = page.location()?.to_owned();
    read(&mut reader, &message, letter).await?;
    leave(&mut reader, &message, letter).await
}

/// Where the portal leads after the registration.
async fn register(reader: &mut Reader, token: &str) -> Told<String> {
    let form = [
        ("token", token),
        ("first_name", "Jo"),
        ("last_name", "Stranger"),
        ("password", PASSWORD),
        ("password_confirm", PASSWORD),
        ("accept_terms", "on"),
    ];
    Ok(reader.post("/register", &form).await?.location()?.to_owned())
}

async fn read(reader: &mut Reader, message: &str, letter: &Letter) -> Told {
    let page = reader.get(message).await?;
    let shown = |text: &str| page.text().contains(text);
    claim(
        page.status == 200 && shown(letter.subject) && shown(letter.line) && shown(FILE_NAME),
        format_args!("the page shows subject, text and attachment: \"{}\"", letter.line),
    )?;
    let file = reader.get(&format!("{message}/attachments/1")).await?;
    claim(
        whole(&file, FILE.as_bytes()),
        format_args!("{FILE_NAME} comes down byte for byte ({} bytes)", FILE.len()),
    )?;
    let original = reader.get(&format!("{message}/original.eml")).await?;
    claim(
        whole(&original, &letter.content),
        format_args!("so does the original message ({} bytes)", letter.content.len()),
    )
}

fn whole(page: &Page, content: &[u8]) -> bool {
    page.status == 200 && page.body == content
}

/// Signs out, and tries the old cookies once more.
async fn leave(reader: &mut Reader, message: &str, letter: &Letter) -> Told {
    let old = reader.cookies.clone();
    reader.post("/logout", &[]).await?.location()?;
    reader.cookies = old;
    let page = reader.get(message).await?;
    claim(
        page.location()? == "/login" && !page.text().contains(letter.line),
        "after signing out the message leads to sign-in, with the old cookies too",
    )
}

/// The end of `--once`.
pub(super) fn done() {
    out::line("\nAll of this was checked, and holds.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_ends_where_the_link_ends() {
        for (notice, expected) in [
            ("read it: http://127.0.0.1:8080/m/ab-C_9 until", Some("ab-C_9")),
            ("http://127.0.0.1:8080/m/abc\r\n\r\nIt", Some("abc")),
            ("/m/abc", Some("abc")),
            ("no link", None),
            ("/m/ nothing", None),
        ] {
            assert_eq!(token(notice).ok(), expected, "{notice}");
        }
    }
}
