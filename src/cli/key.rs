//! `key new`: a key for a client, as a line for the file of keys.

use super::arguments::{KeyAction, KeyCommand};
use super::output::{Failed, note, print};
use crate::ids;
use crate::shown::ShownText;

/// `sparkgap key new NAME`: the line to stdout, so that `>>` appends it to the file, and what to do with it to stderr.
pub(super) fn run(options: &KeyCommand) -> Result<(), Failed> {
    let KeyAction::New(options) = &options.action;
    let name = options.name.trim();
    // The line is read with the name as its rest, and the log shows the name as it is.
    if name.is_empty() || !ShownText::new(name).is_plain() {
        return Err("the owner's name is empty, too long, or has a line end in it".into());
    }
    let key = ids::client_key().map_err(|error| format!("the system gives no random bytes: {error}"))?;
    print(&format!("{key} {name}\n"));
    note(&format!(
        "Append this line to the file of --api-key-file, and let sparkgap read it: kill -HUP PID.\n\
         (The service: append it to /etc/sparkgap/credentials/CLIENT_KEYS, then systemctl reload sparkgap.)\n\
         Give {name} the key on a safe way. On their machine: SPARKGAP_URL=http://BOX:4000 SPARKGAP_API_KEY={key} sparkgap claude\n\
         Without sparkgap there: eval \"$(curl -fsS -H 'x-api-key: {key}' http://BOX:4000/env.sh || echo false)\" && claude\n"
    ));
    Ok(())
}
