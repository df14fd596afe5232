//! The two letters that the demo sends, as a mail program would have written them.

use crate::mail::header;
use data_encoding::BASE64;
use jiff::Timestamp;

/// Who writes.
pub(super) const SENDER: &str = "amber.okafor@example.org";
/// Who gets them directly.
pub(super) const PARTNER: &str = "ward@clinic.example";
/// Who reads them at the portal.
pub(super) const STRANGER: &str = "jo@stranger.example";

const TEXT_SUBJECT: &str = "Your appointment with the heart clinic";
const TEXT: &str = "Dear both,\r\n\r\n\
    the catheter examination is on Thursday at 8:30, fasting.\r\n\
    Please bring the list of your medicines.\r\n\r\nAmber Okafor\r\n";
const FILE_SUBJECT: &str = "Laboratory results of 12 March";
const FILE_TEXT: &str = "Dear both,\r\n\r\n\
    the potassium value is too high and must be checked again.\r\n\
    All values are in the table attached.\r\n\r\nAmber Okafor\r\n";
/// Name of the attachment.
pub(super) const FILE_NAME: &str = "laboratory-results-okonkwo.csv";
/// What is in it.
pub(super) const FILE: &str = "test,value,unit,from,to\n\
    potassium serum,6.1,mmol/l,3.5,5.1\n\
    sodium serum,139,mmol/l,136,145\n\
    creatinine serum,148,umol/l,59,104\n\
    haemoglobin blood,9.4,mmol/l,8.7,11.2\n\
    glycated haemoglobin,61,mmol/mol,20,42\n";

/// A letter.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) subject: &'static str,
    /// A line of its text.
    pub(super) line: &'static str,
    /// Words that nobody but its readers may see.
    pub(super) secrets: &'static [&'static str],
    /// Header and body.
    pub(super) content: Vec<u8>,
}

/// A letter of text, and one with a table attached.
pub(super) fn letters(at: Timestamp) -> [Letter; 2] {
    let (first, second) = (header(TEXT_SUBJECT, "1", at), header(FILE_SUBJECT, "2", at));
    [
        Letter {
            subject: TEXT_SUBJECT,
            line: "the catheter examination is on Thursday at 8:30, fasting.",
            secrets: &[
                TEXT_SUBJECT,
                "the catheter examination is on Thursday",
                "bring the list of your medicines",
            ],
            content: format!("{first}Content-Type: text/plain; charset=us-ascii\r\n\r\n{TEXT}")
                .into_bytes(),
        },
        Letter {
            subject: FILE_SUBJECT,
            line: "the potassium value is too high and must be checked again.",
            secrets: &[
                FILE_SUBJECT,
                "the potassium value is too high",
                FILE_NAME,
                "potassium serum,6.1,mmol/l",
                "glycated haemoglobin,61,mmol/mol",
            ],
            content: with_file(&second).into_bytes(),
        },
    ]
}

fn header(subject: &str, number: &str, at: Timestamp) -> String {
    format!(
        "From: Amber Okafor <{SENDER}>\r\nTo: {PARTNER}, {STRANGER}\r\nSubject: {subject}\r\n\
         Date: {}\r\nMessage-ID: <{number}.{}@example.org>\r\nMIME-Version: 1.0\r\n",
        header::date(at),
        at.as_millisecond()
    )
}

fn with_file(header: &str) -> String {
    let encoded = BASE64.encode(FILE.as_bytes());
    // RFC 2045 §6.8: lines of at most 76 letters.
    let lines: Vec<String> =
        encoded.as_bytes().chunks(76).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    format!(
        "{header}Content-Type: multipart/mixed; boundary=\"=_between\"\r\n\r\n\
         --=_between\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{FILE_TEXT}\r\n\
         --=_between\r\nContent-Type: text/csv; name=\"{FILE_NAME}\"\r\n\
         Content-Disposition: attachment; filename=\"{FILE_NAME}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--=_between--\r\n",
        lines.join("\r\n")
    )
}
