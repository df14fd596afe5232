//! `restante account`: the help desk's hands at recipients' accounts.

use super::{
    Exit, args,
    look::{Paging, list, show, time},
    out,
};
use crate::control::{
    Request,
    accounts::AccountOrder,
    view::{AccountDone, AccountLife, AccountMoved, AccountView},
};
use std::path::Path;

/// `restante account list`
pub fn listed(socket: &Path, json: bool) -> Exit {
    let names = ["ADDRESS", "NAME", "CREATED", "STATE", "SECOND FACTOR"];
    let request = |after, max| Request::AccountList { after, max };
    list(socket, json, Paging::default(), request, &names, |view: &AccountView| {
        let second = if view.second_factor { "app" } else { "none" };
        vec![vec![
            view.address.to_string(),
            view.name.clone(),
            time(view.created),
            state(view).to_owned(),
            second.to_owned(),
        ]]
    })
}

const fn state(view: &AccountView) -> &'static str {
    match (view.locked, view.password) {
        (true, _) => "locked",
        (false, true) => "open",
        (false, false) => "no password",
    }
}

/// `restante account show ADDRESS`
pub fn shown(socket: &Path, named: args::Named) -> Exit {
    let request = Request::Account { order: AccountOrder::Show, address: named.address };
    show(socket, &request, named.json, |life: &AccountLife| {
        let account = &life.account;
        out::line(format_args!("{} ({})", account.address, account.name));
        out::line(format_args!("  registered {}, {}", time(account.created), state(account)));
        if account.second_factor {
            out::line(format_args!(
                "  second factor: app, {} recovery codes left",
                life.recovery_codes
            ));
        }
        out::line(format_args!("  messages: {} not opened, {} opened", life.waiting, life.opened));
        for session in &life.sessions {
            let client = session.client.map(|client| format!(" at {client}")).unwrap_or_default();
            out::line(format_args!(
                "  signed in {}, last seen {}: {}{client}",
                time(session.begun),
                time(session.seen),
                session.agent
            ));
        }
    })
}

/// `restante account lock|unlock|reset|remove ADDRESS`
pub fn order(socket: &Path, order: AccountOrder, named: args::Named) -> Exit {
    let request = Request::Account { order, address: named.address };
    show(socket, &request, named.json, |done: &AccountDone| {
        let was = if done.changed { "" } else { " already" };
        let what = match order {
            AccountOrder::Show => "is shown",
            AccountOrder::Lock => "locked",
            AccountOrder::Unlock => "unlocked",
            AccountOrder::Reset => "reset; its owner is told by mail how to sign in again",
            AccountOrder::Remove => "removed",
        };
        out::line(format_args!(
            "{}:{was} {what}; {} session(s) ended",
            done.address, done.sessions
        ));
    })
}

/// `restante account move OLD NEW`
pub fn moved(socket: &Path, address: String, to: String, json: bool) -> Exit {
    show(socket, &Request::AccountMove { address, to }, json, |done: &AccountMoved| {
        let AccountMoved { address, to, messages, sessions } = done;
        out::line(format_args!(
            "{address} is now {to}, with {messages} message(s); {sessions} session(s) ended; both \
             mailboxes are told"
        ));
    })
}
