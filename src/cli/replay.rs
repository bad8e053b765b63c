//! `replay`: sends a recorded request again, or translates its recorded answer again, and compares.

use std::fs;
use std::io::{ErrorKind, Write as _};

use super::arguments::ReplayCommand;
use super::history::open;
use super::output::{Failed, note, print};
use super::recorded_call::{NOTHING_SENT, RecordedCall, last_answer, passed_headers, sent_of};
use super::told::Told;
use crate::activity::hide_keys;
use crate::app::Sources;
use crate::config::UpstreamProtocol;
use crate::openai::is_form;
use crate::protocol::relay::says_no_such_path;
use crate::protocol::tokenize::read_count;
use crate::proxy::{RecordedWay, golden_case, replay_answer, replay_offline};
use crate::service;
use crate::shown::ShownText;
use crate::state::RecordingRow;
use crate::transport::{CallLimits, Endpoint, ExtraHeaders, Path, nobody};

/// The largest answer that is compared, in bytes.
const ANSWER_SIZE_MAX: usize = 16 * 1024 * 1024;

/// The beginning of a file of a form that was cut to its size, behind the headers of its part.
const CUT_FILE: &[u8] = b"\r\n\r\ncut:";

/// The bytes before and behind a difference that are shown.
const AROUND: usize = 80;

/// `sparkgap replay`. Fails if the answers differ.
pub(super) fn run(options: &ReplayCommand) -> Result<(), Failed> {
    if options.offline && (options.to.is_some() || options.upstream_key_file.is_some()) {
        return Err("--offline asks no server, so it excludes --to and --upstream-key-file".to_owned());
    }
    if options.save.is_some() && !options.offline {
        return Err(
            "--save writes a case of the recorded answer, which no server is asked for: add --offline"
                .to_owned(),
        );
    }
    let row = open(options.state.clone())?.recording(&options.id)?;
    if row.is_cut {
        note("sparkgap: a limit has cut this recording, so the answers may differ\n");
    }
    match (&options.save, options.offline) {
        (Some(folder), _) => save_case(&row, folder),
        (None, true) => compare_offline(&row),
        (None, false) => ask_again(options, &row),
    }
}

/// Writes the golden case of a recording to a folder that must not exist yet, and prints the paths of its files.
fn save_case(row: &RecordingRow, folder: &std::path::Path) -> Result<(), Failed> {
    let case = golden_case(row, &own_keys())?;
    let shown = |path: &std::path::Path| ShownText::new(&path.display().to_string()).to_string();
    let fail = |path: &std::path::Path, error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{} exists; name a new folder", shown(path)),
        _ => format!("{}: {error}", shown(path)),
    };
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| fail(parent, error))?;
    }
    fs::create_dir(folder).map_err(|error| fail(folder, error))?;
    for (name, bytes) in &case.files {
        let path = folder.join(name);
        let mut file = fs::File::create_new(&path).map_err(|error| fail(&path, error))?;
        file.write_all(bytes).map_err(|error| fail(&path, error))?;
        print(&format!("{}\n", shown(&path)));
    }
    if let Some((case, then)) = &case.difference {
        let shown = |bytes: &[u8]| {
            let part = bytes.get(..AROUND).unwrap_or(bytes);
            ShownText::whole(&String::from_utf8_lossy(part)).to_string()
        };
        note(&format!(
            "sparkgap: the expected answer is not the one that the client got, since a case knows no hooks, no lost connection, \
             no silence before a refusal, and nothing that was learned:\n  case: {}\n  then: {}\n",
            shown(case),
            shown(then)
        ));
    }
    note(
        "sparkgap: keys are hidden, but the case holds the conversation: look at it before you pass it on\n",
    );
    Ok(())
}

/// The key for upstreams that this command has, which nothing that it prints or writes may hold. A stream may have brought it
/// in pieces, which the recorder does not find.
fn own_keys() -> Vec<String> {
    service::variable("SPARKGAP_UPSTREAM_KEY").into_iter().collect()
}

/// The client's bytes of that time.
fn answer_of(row: &RecordingRow) -> &[u8] {
    let [.., answer] = &row.places;
    answer
}

fn compare_offline(row: &RecordingRow) -> Result<(), Failed> {
    let mut translated = replay_offline(row)?;
    // The recording lost its keys, so the new translation must lose them too.
    hide_keys(&mut translated, &own_keys());
    let recorded = answer_of(row);
    let way = RecordedCall::read(row).map_or(RecordedWay::Translated, |call| call.way);
    let is_passed = matches!(way, RecordedWay::Messages | RecordedWay::OpenAi);
    if translated == recorded {
        let passed = if is_passed { "; they passed as the upstream sent them" } else { "" };
        print(&format!("{}: the same {} bytes as recorded{passed}\n", row.id, recorded.len()));
        return Ok(());
    }
    let same = translated.iter().zip(recorded).take_while(|(new, old)| new == old).count();
    if same == recorded.len() && translated.len() > same {
        print(&format!(
            "{}: the same {same} bytes as recorded, and {} more: the client had left, or a limit has cut the recording\n",
            row.id,
            translated.len() - same
        ));
        return Ok(());
    }
    let around = |bytes: &[u8]| {
        let part = bytes.get(same.saturating_sub(AROUND)..bytes.len().min(same + AROUND)).unwrap_or_default();
        ShownText::whole(&String::from_utf8_lossy(part)).to_string()
    };
    print(&format!("recorded: {}\nnow:      {}\n", around(recorded), around(&translated)));
    Err(match is_passed {
        true => format!("{}: the client's bytes are not the upstream's from byte {same} on", row.id),
        false => format!(
            "{}: the answers differ from byte {same} on; hooks that see events are not run here",
            row.id
        ),
    })
}

fn ask_again(options: &ReplayCommand, row: &RecordingRow) -> Result<(), Failed> {
    let call = RecordedCall::read(row).ok_or(NOTHING_SENT)?;
    let body = sent_of(row);
    if is_form(&call.kind) && memchr::memmem::find(body, CUT_FILE).is_some() {
        return Err("the recording lacks the files of its form; serve --record-images keeps them".to_owned());
    }
    let url = options.to.clone().unwrap_or_else(|| call.base.clone());
    let (keys, status, answer) = send(options, (&call, &url), (row, body))?;
    let (mut then, mut now) = match call.way {
        RecordedWay::Translated => {
            (Told::read(answer_of(row)), Told::read(&replay_answer(row, status, &answer)?))
        }
        // These pass, so that the upstream's own bytes can be compared.
        _ => (told(&call, &last_answer(row)), told(&call, &answer)),
    };
    // Only now are the pieces of both together, and the keys in them get as many stars.
    then.hide_keys(&keys);
    now.hide_keys(&keys);
    print(&format!("then: {}\nnow:  {}\n", then.line(), now.line()));
    if then == now {
        print("the answers are the same\n");
        return Ok(());
    }
    print(&format!(
        "\n== then\n{}\n\n== now (status {status} of the server)\n{}\n",
        then.content, now.content
    ));
    Err("the answers differ".to_owned())
}

/// The content of an answer that passes.
fn told(call: &RecordedCall, answer: &[u8]) -> Told {
    match call.way {
        RecordedWay::Translated | RecordedWay::Messages => Told::read(answer),
        RecordedWay::OpenAi => Told::read_openai(answer, call.answer_kind.as_deref().unwrap_or_default()),
        RecordedWay::Count => Told::count(call.flavour.and_then(|flavour| read_count(flavour, answer))),
    }
}

/// Sends a recorded body to a server. Returns the keys that it got, and the status and the body of its answer.
fn send(
    options: &ReplayCommand,
    (call, url): (&RecordedCall, &str),
    (row, body): (&RecordingRow, &[u8]),
) -> Result<(Vec<String>, u16, Vec<u8>), Failed> {
    let sources = Sources {
        upstreams: vec![url.to_owned()],
        upstream_key_file: options.upstream_key_file.clone(),
        ..Sources::default()
    };
    let mut loaded = sources.load()?;
    let config = loaded.config.upstreams.first_mut().ok_or("the server has no address")?;
    let keys = config.api_key.iter().map(|key| key.expose().to_owned()).collect();
    let mut headers = ExtraHeaders::default();
    if call.way == RecordedWay::Messages {
        config.protocol = UpstreamProtocol::Messages;
        passed_headers(row).iter().for_each(|(name, value)| _ = headers.pass(name, value));
    }
    let server = Endpoint::new(config, &CallLimits::default())?;
    let path = if call.is_root { Path::Root(&call.path) } else { Path::Api(&call.path) };
    let response = server.post_with(path, &headers, (&call.kind, body), &nobody());
    let response = response.map_err(|failure| format!("{}: {failure}", ShownText::new(url)))?;
    let status = response.status;
    let is_missing = says_no_such_path(status, response.beginning());
    let answer = response.read_all(ANSWER_SIZE_MAX).map_err(|failure| failure.to_string())?;
    // A refusal that is about the path names no model.
    let is_other = matches!(status, 404 | 405) && memchr::memmem::find(&answer, b"model").is_none();
    if is_missing || is_other {
        return Err(format!(
            "{} does not serve {}: the recorded request is one for a server of {}; name such a server with --to",
            ShownText::new(url),
            ShownText::new(&call.path),
            call.protocol()
        ));
    }
    Ok((keys, status, answer))
}
