//! What is expected: a row for each kind of peer, a column for each level, a word a cell.

use super::peers::KINDS;

/// A level, and what the domain publishes while it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub level: &'static str,
    /// The MX host has TLSA records.
    pub tlsa: bool,
    /// The domain has an enforced MTA-STS policy.
    pub sts: bool,
}

const fn column(name: &'static str, level: &'static str, tlsa: bool, sts: bool) -> Column {
    Column { name, level, tlsa, sts }
}

/// In the order of the table's words.
pub const COLUMNS: [Column; 14] = [
    column("none", "none", false, false),
    column("opportunistic", "opportunistic", false, false),
    column("encrypt", "encrypt", false, false),
    column("fingerprint", "fingerprint", false, false),
    column("verify", "verify", false, false),
    column("secure", "secure", false, false),
    column("dane", "dane", true, false),
    column("dane-bare", "dane", false, false),
    column("dane-only", "dane-only", true, false),
    column("dane-only-bare", "dane-only", false, false),
    column("mta-sts", "mta-sts", false, true),
    // RFC 8461 §2: where there are TLSA records, they alone count.
    column("auto-both", "auto", true, true),
    column("auto-sts", "auto", false, true),
    column("auto-bare", "auto", false, false),
];

/// What is done about a level that can't be met.
pub const OTHERWISE: [&str; 3] = ["envelope", "defer", "bounce"];

/// `clear`, `tls`, `proved`: delivered in the clear, over TLS, over TLS that proved itself.
/// `no-tls`, `refused`, `shake`, `unproven`, `no-dane`, `no-sts`: the level is not met, by a host
/// without STARTTLS, one that refuses it, a handshake that fails, what the handshake showed, no TLSA
/// records, no MTA-STS policy. `away`: out of reach. `doubt`: DNS does not say.
/// Behind the words: what the record of the attempt says of `refused`, `shake`, `unproven`, `away` and
/// `doubt`.
const TABLE: &str = "
                      none  opp.  encrypt finger-  verify   secure   dane            dane-only       mta-sts  auto
                                          print                      TLSA     bare   TLSA     bare            both     sts      bare
no-starttls           clear clear no-tls  no-tls   no-tls   no-tls   no-tls   no-tls no-tls   no-dane no-tls   no-tls   no-tls   no-sts
refused               clear clear refused refused  refused  refused  refused  refused refused no-dane refused  refused  refused  no-sts 454 4.7.0 TLS not available
refused-502           clear clear refused refused  refused  refused  refused  refused refused no-dane refused  refused  refused  no-sts 502 5.5.1 what is that
stripped              clear clear no-tls  no-tls   no-tls   no-tls   no-tls   no-tls no-tls   no-dane no-tls   no-tls   no-tls   no-sts
injected              clear away  shake   shake    shake    shake    shake    shake  shake    no-dane shake    shake    shake    no-sts plaintext follows the reply to STARTTLS
self-signed           clear tls   tls     proved   unproven unproven proved   tls    proved   no-dane unproven proved   unproven no-sts self-signed certificate
ca-leaf               clear tls   tls     proved   unproven unproven proved   tls    proved   no-dane unproven proved   unproven no-sts CA certificate used as a leaf
x509-v1               clear tls   tls     proved   unproven unproven proved   tls    proved   no-dane unproven proved   unproven no-sts X.509 version before 3
cn-only               clear tls   tls     proved   unproven unproven proved   tls    proved   no-dane unproven proved   unproven no-sts the certificate bears no name
wrong-name            clear tls   tls     proved   unproven unproven proved   tls    proved   no-dane unproven proved   unproven no-sts bears mx.elsewhere.test, wanted is
expired               clear tls   tls     proved   unproven unproven proved   tls    proved   no-dane unproven proved   unproven no-sts certificate expired on 2021-01-01
not-yet-valid         clear tls   tls     proved   unproven unproven proved   tls    proved   no-dane unproven proved   unproven no-sts not valid before 2090-01-01
missing-intermediate  clear tls   tls     proved   unproven unproven proved   tls    proved   no-dane unproven proved   unproven no-sts unknown issuer
unordered             clear tls   tls     proved   proved   proved   proved   tls    proved   no-dane proved   proved   proved   no-sts
wrong-key             clear clear shake   shake    shake    shake    shake    shake  shake    no-dane shake    shake    shake    no-sts invalid peer certificate: BadSignature
wrong-key-12          clear clear shake   shake    shake    shake    shake    shake  shake    no-dane shake    shake    shake    no-sts invalid peer certificate: BadSignature
tls11                 clear clear shake   shake    shake    shake    shake    shake  shake    no-dane shake    shake    shake    no-sts received fatal alert: ProtocolVersion
client-wanted         clear clear shake   shake    shake    shake    shake    shake  shake    no-dane shake    shake    shake    no-sts CertificateRequired; the host asked for our certificate
client-wanted-12      clear clear shake   shake    shake    shake    shake    shake  shake    no-dane shake    shake    shake    no-sts the host asked for our certificate
client-shown          clear tls   tls     proved   proved   proved   proved   tls    proved   no-dane proved   proved   proved   no-sts
renewed               clear tls   tls     unproven proved   proved   unproven tls    unproven no-dane proved   unproven proved   no-sts is pinned / no TLSA record is met
tls12                 clear tls   tls     proved   proved   proved   proved   tls    proved   no-dane proved   proved   proved   no-sts
good                  clear tls   tls     proved   proved   proved   proved   tls    proved   no-dane proved   proved   proved   no-sts
away                  away  away  away    away     away     away     away     away   away     no-dane away     away     away     no-sts Connection refused
bogus                 doubt doubt doubt   doubt    doubt    doubt    doubt    doubt  doubt    doubt   doubt    doubt    doubt    doubt  could not be looked up
";

/// One meeting of a peer and a level, with a recipients' domain of its own.
#[derive(Debug, Clone)]
pub struct Cell {
    pub kind: &'static str,
    pub column: Column,
    pub otherwise: &'static str,
    pub word: &'static str,
    /// What the record of an attempt holds: one of these.
    pub says: Vec<&'static str>,
}

impl Cell {
    pub fn domain(&self) -> String {
        let zone = if self.kind == "bogus" { "bogus.test" } else { "matrix.test" };
        format!("{}.{}.{}.{zone}", self.kind, self.column.name, self.otherwise)
    }

    /// Content may go.
    pub fn met(&self) -> bool {
        matches!(self.word, "clear" | "tls" | "proved")
    }

    /// What becomes of the message, with the reason's code and the status that a report names.
    pub fn expected(&self) -> (&'static str, &'static str, Option<&'static str>) {
        let status = match self.word {
            "clear" | "tls" | "proved" => return ("delivered", "level-met", None),
            // Who can't be reached has not failed the level, and who can't be found may be anybody:
            // `otherwise` does not speak of that.
            "away" => return ("deferred", "unreachable", None),
            "doubt" => return ("deferred", "dns-trouble", None),
            "no-tls" | "refused" => "5.7.4",
            "shake" | "unproven" | "no-dane" | "no-sts" => "5.7.5",
            word => panic!("no such word: {word}"),
        };
        match self.otherwise {
            "envelope" => ("sealed", "level-not-met", None),
            "defer" => ("deferred", "level-not-met", None),
            _ => ("bounced", "level-not-met", Some(status)),
        }
    }
}

/// The words of the table, for `otherwise` `defer`.
pub fn rows() -> Vec<Cell> {
    let lines: Vec<&'static str> =
        TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).collect();
    assert_eq!(lines.len(), KINDS.len(), "a row for each kind");
    lines.into_iter().zip(KINDS).flat_map(|(line, kind)| row(line, kind)).collect()
}

fn row(line: &'static str, kind: &'static str) -> Vec<Cell> {
    let mut rest = line.strip_prefix(kind).expect("rows stand in the order of the kinds");
    let words = COLUMNS.map(|_| {
        let (word, more) = rest.trim_start().split_once(' ').unwrap_or_else(|| (rest.trim(), ""));
        rest = more;
        word
    });
    let cell = |(column, word): (Column, &'static str)| {
        let says = match word {
            "no-tls" => vec!["STARTTLS is not offered"],
            "no-dane" => vec!["no TLSA records under DNSSEC"],
            "no-sts" => vec!["publishes no MTA-STS policy"],
            _ => rest.trim().split(" / ").collect(),
        };
        let cell = Cell { kind, column, otherwise: "defer", word, says };
        assert!(cell.met() || cell.says.iter().all(|s| !s.is_empty()), "{kind}: a row says why");
        cell
    };
    COLUMNS.into_iter().zip(words).map(cell).collect()
}

/// Every cell.
pub fn cells() -> Vec<Cell> {
    let all = |cell: Cell| OTHERWISE.map(|otherwise| Cell { otherwise, ..cell.clone() });
    rows().into_iter().flat_map(all).collect()
}
