//! `restante vault list`, `show`, `extend`, `recall`, `export`: what waits for pickup. `doubts` and
//! `trust`: the lines to its readers.

use super::{
    Exit,
    look::{Paging, answered, list, path, show, time},
    out,
};
use crate::{
    control::{
        Request, client,
        view::{DoubtView, Trusted, VaultDone, VaultLife, VaultRecipient, VaultView},
    },
    mail::Domain,
};
use jiff::SignedDuration;
use std::{io, path::Path};

/// `restante vault list`
pub fn listed(socket: &Path, json: bool) -> Exit {
    let names = ["ID", "RECIPIENT", "SEALED", "EXPIRES", "OPENED"];
    let request = |after, max| Request::VaultList { after, max };
    list(socket, json, Paging::default(), request, &names, |v: &VaultView| {
        vec![vec![
            v.id.to_string(),
            v.recipient.to_string(),
            time(v.sealed),
            time(v.expires),
            v.opened.map_or_else(|| "not yet".to_owned(), time),
        ]]
    })
}

/// `restante vault show ID`
pub fn shown(socket: &Path, id: String, json: bool) -> Exit {
    show(socket, &Request::VaultShow { id }, json, |life: &VaultLife| {
        let (sender, arrived) = (path(life.sender.as_ref()), time(life.arrived));
        out::line(format_args!(
            "{} from {sender} arrived {arrived} ({} bytes)",
            life.id, life.size
        ));
        recipients(&life.recipients);
    })
}

/// `restante vault extend ID DURATION`
pub fn extend(socket: &Path, id: String, by: SignedDuration, json: bool) -> Exit {
    let request = Request::VaultExtend { id, seconds: by.as_secs() };
    show(socket, &request, json, |done: &VaultDone| recipients(&done.recipients))
}

/// `restante vault recall ID`
pub fn recall(socket: &Path, id: String, recipient: Option<String>, json: bool) -> Exit {
    let request = Request::VaultRecall { id, recipient };
    show(socket, &request, json, |done: &VaultDone| recipients(&done.recipients))
}

/// `restante vault export ID`: the message goes to stdout.
pub fn export(socket: &Path, id: String) -> Exit {
    let mut stdout = io::stdout().lock();
    match answered(client::fetch(socket, &Request::VaultExport { id }, &mut stdout)) {
        Ok(_) => Exit::Done,
        Err(exit) => exit,
    }
}

/// `restante vault doubts`
pub fn doubts(socket: &Path, json: bool) -> Exit {
    let names = ["DOMAIN", "SINCE", "LAST", "LEVEL", "WHY"];
    let request = |after, max| Request::VaultDoubts { after, max };
    list(socket, json, Paging::default(), request, &names, |view: &DoubtView| {
        let row = match &view.doubt {
            Some(d) => [time(d.since), time(d.last), d.level.to_string(), d.reason.clone()],
            None => ["unknown", "unknown", "unknown", "its note can't be read"].map(str::to_owned),
        };
        vec![[vec![view.domain.clone()], row.to_vec()].concat()]
    })
}

/// `restante vault trust DOMAIN`
pub fn trust(socket: &Path, domain: Domain, json: bool) -> Exit {
    show(socket, &Request::VaultTrust { domain }, json, |done: &Trusted| {
        out::line(format_args!("the line to {} is no longer in doubt", done.domain));
    })
}

fn recipients(all: &[VaultRecipient]) {
    let names = ["RECIPIENT", "STATE", "SEALED", "EXPIRES", "OPENED"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|r| {
        vec![
            r.recipient.to_string(),
            r.state.clone(),
            time(r.sealed),
            time(r.expires),
            r.opened.map_or_else(|| "not yet".to_owned(), time),
        ]
    }));
    out::table(&rows);
}
