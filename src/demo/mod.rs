//! `restante demo`: a throw-away gateway with its own name server, a TLS partner and a stranger,
//! all on loopback.
//!
//! Real mail goes the real way: over SMTP into the gateway that `serve` runs too, by DNS to hosts
//! that answer, and to the portal. What is printed after `ok` has just been checked.

mod dns;
mod host;
mod letters;
mod mta;
mod pickup;
mod reader;
mod scratch;
mod search;
mod stage;
mod tell;

use crate::{
    cli::{Exit, look, out},
    clock::{Clock, SystemClock},
    control::view::{TraceRecipient, TraceView},
    mail::QueueId,
    observe,
    policy::Level,
};
use host::Mail;
use letters::{Letter, PARTNER, STRANGER};
use search::Search;
use stage::{PARTNER_HOST, Stage};
use tell::{Failure, Told, chapter, claim, fact, interrupted, quote};

/// Lines of a notice that are shown: who wrote, the link, and until when.
const NOTICE_LINES: usize = 8;

/// Runs the demo: `once` checks everything, the portal too, and returns; else it waits for a
/// browser until Ctrl-C.
pub fn run(once: bool) -> Exit {
    observe::start(false, "error");
    let played = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::at("the runtime"))
        .and_then(|runtime| runtime.block_on(play(once)));
    match played {
        Ok(()) => Exit::Done,
        Err(failure) => {
            out::complain(format_args!("demo: {failure}"));
            Exit::No
        }
    }
}

async fn play(once: bool) -> Told {
    let ended = async {
        interrupted().await?;
        if once { Err(Failure::new("interrupted before its end")) } else { Ok(()) }
    };
    let mut ended = std::pin::pin!(ended);
    let stage = tokio::select! {
        stage = Stage::open() => stage?,
        end = &mut ended => return end,
    };
    let played = tokio::select! {
        played = story(&stage, once) => played,
        end = ended => end,
    };
    stage.close().await;
    played
}

async fn story(stage: &Stage, once: bool) -> Told {
    the_house(stage);
    let letters = letters::letters(SystemClock.now());
    let ids = letters_go_in(stage, &letters).await?;
    let search = Search::new(letters.iter().flat_map(|l| l.secrets).copied())?;
    partner_got_them(stage, &letters, &ids, &search).await?;
    let notice = stranger_got_notices(stage, &letters, &ids, &search).await?;
    nothing_lies_on_disk(stage, &search)?;
    it_can_be_traced(stage, &ids).await?;
    let [_, with_file] = &letters;
    let token = pickup::token(&notice)?;
    if !once {
        return pickup::by_hand(stage, token).await;
    }
    pickup::walk(stage, with_file, token).await?;
    nothing_more_came_out(stage, &search).await?;
    pickup::done();
    Ok(())
}

fn the_house(stage: &Stage) {
    chapter("1. The house, all of it on loopback; nothing leaves this machine");
    fact("gateway", format_args!("smtp {}, portal http://{}", stage.smtp, stage.portal));
    let (partner, stranger) = (&stage.partner, &stage.stranger);
    fact("partner", format_args!("{} at {}, with STARTTLS", partner.name, partner.address));
    fact("stranger", format_args!("{} at {}, without TLS", stranger.name, stranger.address));
    fact("inside", format_args!("{} at {}, for bounces", stage.inside.name, stage.inside.address));
    fact("policies", "clinic.example: level secure; everybody else: envelope");
}

async fn letters_go_in(stage: &Stage, letters: &[Letter; 2]) -> Told<[QueueId; 2]> {
    chapter(format_args!("2. Two letters go in by SMTP, each to {PARTNER} and {STRANGER}"));
    let [first, second] = letters;
    let first = mta::hand_in(stage.smtp, &stage.anchors, first).await?;
    // One after the other, so that the second notice is the one for the second letter.
    stage.stranger.mails(1, "the first notice").await?;
    let ids = [first, mta::hand_in(stage.smtp, &stage.anchors, second).await?];
    for (letter, id) in letters.iter().zip(&ids) {
        let size = letter.content.len();
        fact("queued", format_args!("{id}  \"{}\", {size} bytes", letter.subject));
    }
    Ok(ids)
}

async fn partner_got_them(
    stage: &Stage,
    letters: &[Letter; 2],
    ids: &[QueueId; 2],
    search: &Search,
) -> Told {
    chapter("3. What the partner got");
    let mails = stage.partner.mails(letters.len(), "the letters").await?;
    let tls = mails.first().and_then(|mail| mail.tls.clone()).unwrap_or_default();
    claim(
        mails.len() == letters.len()
            && mails.iter().all(|mail| mail.tls.is_some() && mail.is_for(PARTNER)),
        format_args!("both letters, for {PARTNER} alone, over {tls}"),
    )?;
    for id in ids {
        let life = stage.trace(*id).await?;
        why_direct(recipient(&life, PARTNER)?, *id)?;
    }
    let arrived = |letter: &Letter| mails.iter().any(|mail| is_copy(mail, letter));
    claim(
        letters.iter().all(arrived),
        "byte for byte as they went in, save one Received field on top",
    )?;
    let copies: Vec<u8> = mails.iter().flat_map(|mail| mail.content.iter().copied()).collect();
    let secrets: usize = letters.iter().map(|letter| letter.secrets.len()).sum();
    claim(
        search.within(&copies).len() == secrets,
        format_args!("the search used below finds all {secrets} phrases looked for in here"),
    )
}

fn why_direct(to: &TraceRecipient, id: QueueId) -> Told {
    let attempt = to.attempts.last().and_then(|attempt| attempt.tls.as_ref());
    let (Some(tls), Some(policy)) = (attempt, &to.policy) else {
        return Err(Failure::new(format!("the record of {id} has no TLS or no policy: {to:?}")));
    };
    let named = tls.names.iter().any(|name| name == PARTNER_HOST);
    let met = tls.verified && named && policy.level == Level::Secure;
    claim(
        to.outcome == "delivered" && met,
        format_args!(
            "{id}: certificate for {} verified, as {}:{} asks",
            tls.names.join(" "),
            policy.file,
            policy.line
        ),
    )
}

/// The letter with exactly one header field before it, a `Received`.
fn is_copy(mail: &Mail, letter: &Letter) -> bool {
    let added = mail.content.strip_suffix(letter.content.as_slice());
    let Some(field) = added.and_then(|added| added.strip_suffix(b"\r\n")) else { return false };
    let mut lines = field.split(|&b| b == b'\n');
    let first = lines.next().unwrap_or_default();
    first.starts_with(b"Received:")
        && lines.all(|line| line.starts_with(b" ") || line.starts_with(b"\t"))
}

/// The text of the notice for the second letter.
async fn stranger_got_notices(
    stage: &Stage,
    letters: &[Letter; 2],
    ids: &[QueueId; 2],
    search: &Search,
) -> Told<String> {
    chapter("4. What the stranger's server got");
    let mails = stage.stranger.mails(letters.len(), "the notices").await?;
    claim(
        mails.len() == letters.len() && mails.iter().all(|mail| mail.is_for(STRANGER)),
        "two notices, and nothing else:",
    )?;
    let mut notice = String::new();
    for mail in &mails {
        notice = mail.text()?;
        pickup::token(&notice)?;
    }
    notice.lines().filter(|line| !line.is_empty()).take(NOTICE_LINES).for_each(quote);
    let heard = stage.stranger.heard();
    claim(
        search.within(&heard).is_empty(),
        format_args!("in the {} bytes it saw: none of the letters' words", heard.len()),
    )?;
    for id in ids {
        let life = stage.trace(*id).await?;
        let to = recipient(&life, STRANGER)?;
        let policy = to.policy.as_ref().map(|p| format!("{}:{}", p.file, p.line));
        claim(
            to.outcome == "sealed" && policy.is_some(),
            format_args!("{id}: sealed for pickup, as {} says", policy.unwrap_or_default()),
        )?;
    }
    Ok(notice)
}

fn nothing_lies_on_disk(stage: &Stage, search: &Search) -> Told {
    chapter("5. What lies on disk");
    let sweep = search.below(&stage.data)?;
    claim(
        sweep.found.is_empty() && sweep.files > 0,
        format_args!(
            "{} files, {} kB below {}: none of the letters' words, plain or encoded",
            sweep.files,
            sweep.bytes / 1000,
            stage.data.display()
        ),
    )?;
    claim(stage.inside.heard().is_empty(), "no bounce and no report went inside")
}

async fn it_can_be_traced(stage: &Stage, ids: &[QueueId; 2]) -> Told {
    let [_, id] = *ids;
    chapter(format_args!("6. How to look: restante trace {id}"));
    let socket = stage.socket();
    let shown = tokio::task::spawn_blocking(move || look::trace(&socket, id.to_string(), false));
    let exit = shown.await.map_err(Failure::at("trace"))?;
    if exit != Exit::Done {
        return Err(Failure::new(format!("restante trace {id} ended with {}", exit.code())));
    }
    Ok(())
}

async fn nothing_more_came_out(stage: &Stage, search: &Search) -> Told {
    let sweep = search.below(&stage.data)?;
    let heard = search.within(&stage.stranger.heard());
    claim(
        sweep.found.is_empty() && heard.is_empty(),
        "and still: none of it on disk, none of it at the stranger's server",
    )?;
    let partner = stage.partner.mails(0, "the letters").await?.len();
    let stranger = stage.stranger.mails(0, "the notices").await?.len();
    claim(
        (partner, stranger) == (2, 3),
        "in all: two letters to the partner; two notices and a code to the stranger",
    )
}

fn recipient<'a>(life: &'a TraceView, address: &str) -> Told<&'a TraceRecipient> {
    let found = life.recipients.iter().find(|r| r.address.to_string() == address);
    found.ok_or_else(|| Failure::new(format!("{} knows nothing of {address}", life.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_received_field_makes_a_copy() {
        let [letter, _] = letters::letters(jiff::Timestamp::UNIX_EPOCH);
        let own = String::from_utf8(letter.content.clone()).unwrap();
        let copy = |content: String| {
            let content = content.into_bytes();
            is_copy(&Mail { recipients: Vec::new(), tls: None, content }, &letter)
        };
        assert!(copy(format!("Received: from a\r\n by b;\r\n\tnow\r\n{own}")));
        for (content, why) in [
            (own.clone(), "none"),
            (format!("Received: a\r\nReceived: b\r\n{own}"), "two"),
            (format!("X-Spam: no\r\n{own}"), "another field"),
            (format!("Received: a\r\n{own}\r\n"), "a line more at the end"),
            (format!("Received: a\r\n{}", own.replace("fasting", "feasting")), "another text"),
            (format!("Received: a{own}"), "run into the first line"),
        ] {
            assert!(!copy(content), "{why}");
        }
    }
}
