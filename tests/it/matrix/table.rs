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
pub const COLUMNS: [Column; 6] = [
    column("none", "none", false, false),
    column("opportunistic", "opportunistic", false, false),
    column("encrypt", "encrypt", false, false),
    column("fingerprint", "fingerprint", false, false),
    column("verify", "verify", false, false),
    column("secure", "secure", false, false),
];

/// What is done about a level that can't be met.
pub const OTHERWISE: [&str; 3] = ["envelope", "defer", "bounce"];

/// `clear`, `tls`, `proved`: delivered in the clear, over TLS, over TLS that proved itself.
/// `no-tls`, `refused`, `shake`, `unproven`: the level is not met, by a host without STARTTLS, one
/// that refuses it, a handshake that fails, or what the handshake showed. `away`: out of reach.
/// Behind the words: what the record of the attempt says of `shake`, `unproven` and `away`.
const TABLE: &str = "
no-starttls           clear clear  no-tls  no-tls   no-tls   no-tls
refused               clear clear  refused refused  refused  refused
stripped              clear clear  no-tls  no-tls   no-tls   no-tls
self-signed           clear tls    tls     proved   unproven unproven self-signed certificate
ca-leaf               clear tls    tls     proved   unproven unproven CA certificate used as a leaf
x509-v1               clear tls    tls     proved   unproven unproven X.509 version before 3
cn-only               clear tls    tls     proved   unproven unproven the certificate bears no name
wrong-name            clear tls    tls     proved   unproven unproven bears mx.elsewhere.test, wanted is
expired               clear tls    tls     proved   unproven unproven certificate expired on 2021-01-01
not-yet-valid         clear tls    tls     proved   unproven unproven not valid before 2090-01-01
missing-intermediate  clear tls    tls     proved   unproven unproven unknown issuer
unordered             clear tls    tls     proved   proved   proved
wrong-key             clear clear  shake   shake    shake    shake    TLS handshake: invalid peer certificate: BadSignature
wrong-key-12          clear clear  shake   shake    shake    shake    TLS handshake: invalid peer certificate: BadSignature
tls11                 clear clear  shake   shake    shake    shake    TLS handshake: received fatal alert: ProtocolVersion
client-wanted         clear clear  shake   shake    shake    shake    CertificateRequired; the host asked for our certificate
client-wanted-12      clear clear  shake   shake    shake    shake    the host asked for our certificate
client-shown          clear tls    tls     proved   proved   proved
tls12                 clear tls    tls     proved   proved   proved
good                  clear tls    tls     proved   proved   proved
away                  away  away   away    away     away     away     Connection refused
";

/// One meeting of a peer and a level.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub kind: &'static str,
    pub column: Column,
    pub otherwise: &'static str,
    pub word: &'static str,
    /// What the record of an attempt holds.
    pub says: &'static str,
}

impl Cell {
    /// The recipients' domain of this cell alone.
    pub fn domain(&self) -> String {
        format!("{}.{}.{}.test", self.kind, self.column.name, self.otherwise)
    }

    /// Content may go.
    pub fn met(&self) -> bool {
        matches!(self.word, "clear" | "tls" | "proved")
    }

    /// What becomes of the message, with the reason's code and the status that a report names.
    pub fn expected(&self) -> (&'static str, &'static str, Option<&'static str>) {
        let status = match self.word {
            "clear" | "tls" | "proved" => return ("delivered", "level-met", None),
            // Who can't be reached has not failed the level: `otherwise` does not speak of that.
            "away" => return ("deferred", "unreachable", None),
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
    let mut cells = Vec::new();
    let lines: Vec<&'static str> = TABLE.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), KINDS.len(), "a row for each kind");
    for (line, kind) in lines.into_iter().zip(KINDS) {
        let mut words = line.split_ascii_whitespace();
        assert_eq!(words.next(), Some(kind), "rows stand in the order of the kinds");
        let mut rest = line.trim_start_matches(kind);
        for column in COLUMNS {
            let word = words.next().expect("a word for each column");
            rest = rest.trim_start().strip_prefix(word).expect("the same word");
            cells.push(Cell { kind, column, otherwise: "defer", word, says: rest.trim() });
        }
        let row = cells.len() - COLUMNS.len();
        for cell in &mut cells[row..] {
            cell.says = match cell.word {
                "no-tls" => "STARTTLS is not offered",
                "refused" => "454 4.7.0 TLS not available",
                "no-dane" => "no TLSA records under DNSSEC",
                "no-sts" => "publishes no MTA-STS policy",
                _ => rest.trim(),
            };
            assert!(cell.met() || !cell.says.is_empty(), "{kind}: a row says why");
        }
    }
    cells
}

/// Every cell.
pub fn cells() -> Vec<Cell> {
    let rows = rows().into_iter();
    rows.flat_map(|cell| OTHERWISE.map(|otherwise| Cell { otherwise, ..cell })).collect()
}
