//! What is measured, and what is aimed at.

use super::peer::{Duty, Kind};

/// A figure that a target speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// Rate of the first contestant by that of the second, medians.
    Ratio,
    /// Processor seconds per 10,000 messages.
    Cpu,
    /// 99 % of the replies to the final dot came within so many milliseconds.
    Ack,
    /// Most memory of all processes together, MiB.
    Pss,
    /// Syncs per message.
    Syncs,
}

/// A target: at least this where it is a ratio, at most this otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) figure: Figure,
    pub(super) aim: f64,
    pub(super) stretch: Option<f64>,
}

/// A row: one load, and who bears it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) duty: Duty,
    /// Who runs beside Restante, under which duty: the ratio is taken to it.
    pub(super) beside: Option<(Kind, Duty)>,
    pub(super) sessions: usize,
    /// Bytes of a message.
    pub(super) size: usize,
    pub(super) amount: Amount,
    pub(super) targets: &'static [Target],
}

/// How many messages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    /// What the command line says.
    Full,
    /// A quarter of it.
    Quarter,
    /// So many, whatever it says.
    Fixed(u64),
    /// None: what it costs to be there.
    Nothing,
}

impl Row {
    pub(super) fn messages(&self, full: u64) -> u64 {
        match self.amount {
            Amount::Full => full,
            Amount::Quarter => full / 4,
            Amount::Fixed(count) => count,
            Amount::Nothing => 0,
        }
    }

    pub(super) fn is_big(&self) -> bool {
        self.size >= 1 << 20
    }
}

const fn ratio(aim: f64, stretch: f64) -> Target {
    Target { figure: Figure::Ratio, aim, stretch: Some(stretch) }
}

const fn most(figure: Figure, aim: f64, stretch: Option<f64>) -> Target {
    Target { figure, aim, stretch }
}

const fn accept(
    name: &'static str,
    what: &'static str,
    sessions: usize,
    amount: Amount,
    targets: &'static [Target],
) -> Row {
    let beside = Some((Kind::Postfix, Duty::Accept));
    Row { name, what, duty: Duty::Accept, beside, sessions, size: 4096, amount, targets }
}

const fn relay(
    name: &'static str,
    what: &'static str,
    duty: Duty,
    beside: (Kind, Duty),
    targets: &'static [Target],
) -> Row {
    let (beside, amount) = (Some(beside), Amount::Full);
    Row { name, what, duty, beside, sessions: 50, size: 4096, amount, targets }
}

/// All rows, with the targets of the table that asked for this bench.
pub(super) const ROWS: &[Row] = &[
    accept(
        "accept-1",
        "accept, 1 session",
        1,
        Amount::Quarter,
        &[ratio(1.5, 3.0), most(Figure::Syncs, 1.0, None)],
    ),
    accept("accept-10", "accept, 10 sessions", 10, Amount::Full, &[ratio(3.0, 5.0)]),
    accept(
        "accept-50",
        "accept, 50 sessions",
        50,
        Amount::Full,
        &[ratio(6.0, 8.0), most(Figure::Syncs, 0.1, None)],
    ),
    accept(
        "accept-200",
        "accept, 200 sessions",
        200,
        Amount::Full,
        &[ratio(8.0, 10.0), most(Figure::Ack, 60.0, None)],
    ),
    relay(
        "relay-plain",
        "relay, plain, 50 sessions",
        Duty::Plain,
        (Kind::Postfix, Duty::Plain),
        &[ratio(4.5, 6.0), most(Figure::Cpu, 4.0, Some(3.0)), most(Figure::Syncs, 0.1, None)],
    ),
    relay(
        "relay-tls",
        "relay, TLS at level `secure`, connections reused",
        Duty::Tls,
        (Kind::Postfix, Duty::Tls),
        &[ratio(6.0, 9.0), most(Figure::Cpu, 6.0, None)],
    ),
    relay(
        "relay-handshake",
        "relay, TLS, a handshake per message",
        Duty::Handshake,
        (Kind::Postfix, Duty::Handshake),
        &[ratio(4.0, 5.0)],
    ),
    relay(
        "envelope",
        "envelope path, notices out over TLS, beside our own TLS relay",
        Duty::Envelope,
        (Kind::Restante, Duty::Tls),
        &[ratio(0.65, 0.8), most(Figure::Syncs, 0.2, None)],
    ),
    Row {
        name: "envelope-1",
        what: "envelope path, 1 session",
        duty: Duty::Envelope,
        beside: None,
        sessions: 1,
        size: 4096,
        amount: Amount::Quarter,
        targets: &[most(Figure::Syncs, 2.0, None)],
    },
    Row {
        name: "big",
        what: "10 MiB messages, 4 sessions, plain",
        duty: Duty::Plain,
        beside: Some((Kind::Postfix, Duty::Plain)),
        sessions: 4,
        size: 10 << 20,
        amount: Amount::Fixed(20),
        targets: &[ratio(1.5, 2.0), most(Figure::Pss, 40.0, None)],
    },
    Row {
        name: "idle",
        what: "idle",
        duty: Duty::Accept,
        beside: Some((Kind::Postfix, Duty::Accept)),
        sessions: 0,
        size: 0,
        amount: Amount::Nothing,
        targets: &[most(Figure::Pss, 12.0, Some(8.0))],
    },
];
