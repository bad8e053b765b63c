//! The folder as a server and the commands use it, with each thing that can be wrong with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::folder::{FILE, FolderLock};
use super::schema::open;
use super::{Fact, LateState, Reader, RecordingRow, RequestFilter, RequestRow, Store, UsageGroup};

/// Noon of 2026-11-30 by UTC, in seconds.
const NOON: u64 = 1_796_040_000;

const TODAY: &str = "2026-11-30";

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sparkgap-state-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn row(client: &str, prompt: u64) -> RequestRow {
    RequestRow {
        id: "req_1".to_owned(),
        ended_ms: NOON * 1000,
        client: client.to_owned(),
        upstream: "spark".to_owned(),
        upstream_model: "qwen".to_owned(),
        status: 200,
        prompt,
        output: 7,
        cost: 3,
        ..RequestRow::default()
    }
}

/// Writes rows by a server that ends in order.
fn write(folder: &Path, rows: &[RequestRow]) {
    let (store, _) = Store::open(folder.to_owned(), NOON, |_| {}).unwrap();
    rows.iter().for_each(|row| store.add(row.clone()));
    store.close();
}

fn requests(folder: &Path, filter: RequestFilter) -> Vec<RequestRow> {
    let filter = RequestFilter { rows_max: 100, ..filter };
    Reader::open(folder).unwrap().requests(&filter).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn rows_come_back_as_they_were() {
    let folder = folder("rows");
    let full = RequestRow {
        session: "s'1".to_owned(),
        model: "claude".to_owned(),
        is_streamed: true,
        status: 499,
        stop_reason: "end_turn".to_owned(),
        cached: 5,
        lane: Some(1),
        queue_ms: Some(0),
        first_byte_ms: Some(12),
        total_ms: 34,
        error: "the client \u{1b}[31m has left".to_owned(),
        ..row("anna", 10)
    };
    write(&folder, &[row("guest", 1), full.clone()]);
    assert_eq!(requests(&folder, RequestFilter::default()), [row("guest", 1), full.clone()]);
    assert_eq!(
        requests(&folder, RequestFilter { failed: true, ..Default::default() }),
        std::slice::from_ref(&full)
    );
    let session = Some("s'1".to_owned());
    assert_eq!(requests(&folder, RequestFilter { session, ..Default::default() }), [full]);
    let since_ms = NOON * 1000 + 1;
    assert_eq!(requests(&folder, RequestFilter { since_ms, ..Default::default() }), []);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn usage_adds_up_over_restarts_and_counts_no_refused_request() {
    let folder = folder("usage");
    let refused = RequestRow { upstream: String::new(), status: 429, ..row("anna", 1000) };
    for _ in 0..2 {
        write(&folder, &[row("anna", 10), row("guest", 1), row("anna", 20), refused.clone()]);
    }
    let reader = Reader::open(&folder).unwrap();
    let told = |by, since| {
        let rows = reader.usage(by, since).unwrap();
        let told = |row: super::UsageRow| (row.name, row.requests, row.prompt, row.output, row.cost);
        rows.into_iter().map(told).collect::<Vec<_>>()
    };
    let expected = [("anna".to_owned(), 4, 60, 28, 12), ("guest".to_owned(), 2, 2, 14, 6)];
    assert_eq!(told(UsageGroup::Client, TODAY), expected);
    assert_eq!(told(UsageGroup::Day, ""), [(TODAY.to_owned(), 6, 62, 42, 18)]);
    assert_eq!(told(UsageGroup::Model, "2026-12-01"), []);
    // The tokens of today are there for the budgets of the next start, and those of yesterday are not.
    let (store, saved) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    assert_eq!(saved.tokens_today, [("anna".to_owned(), 88), ("guest".to_owned(), 16)]);
    store.close();
    let (store, saved) = Store::open(folder.clone(), NOON + 24 * 60 * 60, |_| {}).unwrap();
    assert_eq!(saved.tokens_today, []);
    store.close();
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn facts_of_a_kind_replace_each_other() {
    let folder = folder("facts");
    let fact = |kind: &str, key: &str| Fact { kind: kind.into(), key: key.into(), value: "1".into() };
    let (store, saved) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    assert_eq!(saved.facts, []);
    store.save(vec!["speed"], vec![fact("speed", "a"), fact("speed", "b")]);
    store.save(vec!["shared"], vec![fact("shared", "c")]);
    store.save(vec!["speed"], vec![fact("speed", "b")]);
    store.close();
    let (store, saved) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    assert_eq!(saved.facts, [fact("shared", "c"), fact("speed", "b")]);
    store.close();
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_corrupt_file_is_kept_under_another_name() {
    let folder = folder("corrupt");
    fs::create_dir_all(&folder).unwrap();
    for times in 1..=2 {
        fs::write(folder.join(FILE), "not a database, whatever it says of itself".repeat(100)).unwrap();
        write(&folder, &[row("anna", 10)]);
        assert_eq!(requests(&folder, RequestFilter::default()).len(), 1, "{times}");
    }
    let first = format!("{FILE}.corrupt-{TODAY}");
    let kept: Vec<_> = names(&folder)
        .into_iter()
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    assert_eq!(kept, ["lock".to_owned(), FILE.to_owned(), first.clone(), format!("{first}-2")]);
    assert!(fs::read_to_string(folder.join(first)).unwrap().starts_with("not a database"));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_header_with_impossible_numbers_is_corrupt_too() {
    let folder = folder("header");
    write(&folder, &[row("guest", 1)]);
    let mut bytes = fs::read(folder.join(FILE)).unwrap();
    bytes.iter_mut().skip(40).for_each(|byte| *byte = 0xA7);
    fs::write(folder.join(FILE), &bytes).unwrap();
    write(&folder, &[row("anna", 10)]);
    assert_eq!(requests(&folder, RequestFilter::default()), [row("anna", 10)]);
    assert!(names(&folder).contains(&format!("{FILE}.corrupt-{TODAY}")));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn files_are_for_their_user_alone() {
    let folder = folder("rights");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join(FILE), "").unwrap();
    fs::set_permissions(folder.join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
    let (store, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    store.add(row("anna", 1));
    store.hand_over();
    for name in names(&folder) {
        let mode = fs::metadata(folder.join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(names(&folder).contains(&format!("{FILE}-wal")), "{:?}", names(&folder));
    let mode = fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "an operator's folder stays as it is");
    store.close();
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn rows_are_kept_where_recordings_do_not_fit() {
    let folder = folder("full");
    write(&folder, &[]);
    let database = open(&folder).unwrap();
    // As with a full disk: the statement fails, and smaller ones do not.
    database
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON recordings BEGIN SELECT RAISE(ABORT, 'disk is full'); END",
        )
        .unwrap();
    drop(database);
    let (store, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    for number in 0..20 {
        store.add(row("anna", number));
        store.add_recording(recording(&format!("req_{number}"), "s", 9), 9000);
    }
    store.close();
    assert_eq!(requests(&folder, RequestFilter::default()).len(), 20);
    assert!(Reader::open(&folder).unwrap().recording("last").is_err());
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_that_breaks_while_it_is_used_loses_no_batch() {
    let folder = folder("breaks");
    let rows: Vec<_> = (0..200).map(|i| row(&format!("client {i}"), i)).collect();
    write(&folder, &rows);
    // The pages after the first are overwritten, so the file opens and fails later.
    let mut bytes = fs::read(folder.join(FILE)).unwrap();
    bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0x55);
    fs::write(folder.join(FILE), &bytes).unwrap();
    write(&folder, &[row("anna", 10)]);
    assert_eq!(requests(&folder, RequestFilter::default()), [row("anna", 10)]);
    assert!(names(&folder).contains(&format!("{FILE}.corrupt-{TODAY}")));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn only_one_process_writes_and_a_new_one_may_take_over() {
    let folder = folder("lock");
    let (old, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    assert!(FolderLock::take(&folder).unwrap().is_none());
    let (second, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    second.add(row("second", 1));
    second.close();
    old.hand_over();
    let (new, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    // Both write while the old one finishes its streams.
    new.add(row("new", 1));
    old.add(row("old", 1));
    old.close();
    new.close();
    let mut clients: Vec<_> =
        requests(&folder, RequestFilter::default()).into_iter().map(|row| row.client).collect();
    clients.sort();
    assert_eq!(clients, ["new", "old"]);
    fs::remove_dir_all(&folder).unwrap();
}

/// Waits for the next thing that a folder had after the start.
fn next_late(late: &Receiver<LateState>) -> LateState {
    late.recv_timeout(Duration::from_secs(30)).unwrap()
}

#[test]
fn a_late_taker_loads_before_it_saves() {
    let folder = folder("late");
    let fact = |value: &str| Fact { kind: "shared".into(), key: "n".into(), value: value.to_owned() };
    let (first, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    first.add(row("anna", 30));
    assert!(first.save(vec!["shared"], vec![fact("30")]));
    let (sender, late) = channel();
    let take_late = move |state| sender.send(state).unwrap();
    let (second, saved) = Store::open(folder.clone(), NOON, take_late).unwrap();
    assert_eq!((saved.facts.len(), saved.tokens_today.len()), (0, 0), "another process has it");
    second.add(row("early", 1));
    assert!(!second.save(vec!["shared"], vec![fact("1")]), "it has not read the folder");
    second.look(NOON, false);
    first.close();
    assert!(late.try_recv().is_err());
    second.look(NOON, false);
    let LateState::Taken(saved) = next_late(&late) else { panic!("the folder is taken first") };
    assert_eq!(saved.facts, [fact("30")]);
    assert_eq!(saved.tokens_today, [("anna".to_owned(), 37)]);
    assert!(second.save(vec!["shared"], vec![fact("31")]));
    second.add(row("anna", 10));
    second.look(NOON, false);
    second.look(NOON, true);
    let LateState::Tokens(tokens) = next_late(&late) else { panic!("a folder is taken once") };
    let anna = |tokens: &[(String, u64)]| tokens.iter().find(|(client, _)| client == "anna").map(|it| it.1);
    assert!(anna(&tokens).is_some_and(|tokens| [37, 54].contains(&tokens)), "{tokens:?}");
    second.close();
    let (third, saved) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    assert_eq!((saved.facts, anna(&saved.tokens_today)), (vec![fact("31")], Some(54)));
    third.close();
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_newer_version_is_left_alone() {
    let folder = folder("newer");
    write(&folder, &[row("anna", 10)]);
    let database = open(&folder).unwrap();
    database.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(database);
    write(&folder, &[row("guest", 1)]);
    assert_eq!(requests(&folder, RequestFilter::default()), [row("anna", 10)]);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn old_rows_go_and_a_clock_that_was_ahead_does_no_harm() {
    let folder = folder("old");
    let day = 24 * 60 * 60 * 1000;
    let at = |ended_ms| RequestRow { ended_ms, ..row("anna", 1) };
    let (ahead, now) = (at(u64::from(u32::MAX) * 1000), at(NOON * 1000));
    write(&folder, &[at(NOON * 1000 - 31 * day), at(NOON * 1000 - 29 * day), ahead.clone(), now.clone()]);
    // Old rows go with the first batch of a server, and the four rows above may have been several batches.
    write(&folder, std::slice::from_ref(&now));
    assert_eq!(
        requests(&folder, RequestFilter::default()),
        [at(NOON * 1000 - 29 * day), ahead, now.clone(), now]
    );
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_folder_that_cannot_be_used_stops_nothing() {
    let folder = folder("unusable");
    fs::write(&folder, "a file in its place").unwrap();
    write(&folder, &[row("anna", 10)]);
    assert!(Reader::open(&folder).unwrap_err().contains("--state DIR"));
    fs::remove_file(&folder).unwrap();
}

#[test]
fn numbers_beyond_all_measure_are_cut() {
    let folder = folder("numbers");
    let wild = RequestRow { output: u64::MAX, cost: u64::MAX, total_ms: u64::MAX, ..row("anna", u64::MAX) };
    write(&folder, &[wild.clone(), wild]);
    assert_eq!(Reader::open(&folder).unwrap().usage(UsageGroup::Day, "").unwrap()[0].requests, 2);
    fs::remove_dir_all(&folder).unwrap();
}

fn recording(id: &str, session: &str, size: usize) -> RecordingRow {
    let places = [vec![b'x'; size], Vec::new(), b"{}".to_vec(), Vec::new(), Vec::new()];
    RecordingRow {
        id: id.to_owned(),
        session: session.to_owned(),
        ended_ms: NOON * 1000,
        places,
        ..RecordingRow::default()
    }
}

#[test]
fn the_oldest_recordings_go() {
    let folder = folder("recordings");
    let (store, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    for (id, session) in [("req_1", "s"), ("req_2", "s"), ("req_3", "other"), ("req_4", "s")] {
        store.add_recording(recording(id, session, 1000), 3500);
    }
    store.add(row("anna", 1));
    store.close();
    let reader = Reader::open(&folder).unwrap();
    assert!(reader.recording("req_1").unwrap_err().contains("no recording"));
    assert_eq!(reader.recording("req_3").unwrap(), recording("req_3", "other", 1000));
    let last = reader.recording("last").unwrap();
    assert_eq!(last.id, "req_4");
    assert_eq!(reader.turn_before(&last).unwrap().unwrap().id, "req_2");
    assert_eq!(reader.turn_before(&recording("req_2", "s", 1)).unwrap(), None);
    assert_eq!(reader.turn_before(&recording("req_9", "", 1)).unwrap(), None);
    assert!(!requests(&folder, RequestFilter::default())[0].is_recorded);
    // One that is larger than the limit stays until the next one comes.
    let (store, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    store.add_recording(recording("req_1", "s", 9000), 3500);
    store.close();
    assert!(reader.recording("req_1").is_ok() && reader.recording("req_4").is_err());
    assert!(requests(&folder, RequestFilter::default())[0].is_recorded);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_turn_before_is_of_the_same_conversation() {
    let folder = folder("turns");
    let (store, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    let add = |id: &str, agent: &str, lane: u64, path: &str| {
        let head = format!(
            r#"{{"record":{{"agent":{agent},"lane":{lane},"model":"{id}"}},"request":{{"path":"{path}"}}}}"#
        );
        let row = RecordingRow { head, ..recording(id, "s", 9) };
        store.add_recording(row.clone(), 100_000);
        row
    };
    let path = "/v1/messages";
    add("req_1", "null", 0, path);
    add("req_2", "\"explorer\"", 1, path);
    add("req_3", "null", 2, path);
    add("req_4", "null", 0, "/v1/messages/count_tokens");
    let main = add("req_5", "null", 0, path);
    let agent = add("req_6", "\"explorer\"", 1, path);
    let title = add("req_7", "null", 1, path);
    store.add_recording(RecordingRow { head: "{".to_owned(), ..recording("req_8", "s", 9) }, 100_000);
    store.close();
    let reader = Reader::open(&folder).unwrap();
    let before = |row: &RecordingRow| reader.turn_before(row).unwrap().map(|before| before.id);
    assert_eq!(before(&main).as_deref(), Some("req_1"));
    assert_eq!(before(&agent).as_deref(), Some("req_2"));
    assert_eq!(before(&title), None);
    assert_eq!(before(&recording("req_8", "s", 9)), None);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_count_is_listed_and_is_not_usage_nor_a_turn() {
    let folder = folder("count");
    let (store, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    store.add(RequestRow { is_unused: true, ..row("anna", 10) });
    let by_path = |id: &str, path: &str| RecordingRow {
        head: format!(r#"{{"request":{{"path":"{path}","headers":[]}}}}"#),
        ..recording(id, "s", 9)
    };
    let rows = ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages"];
    let rows = rows.iter().zip(["req_1", "req_2", "req_3"]).map(|(path, id)| by_path(id, path));
    rows.for_each(|row| store.add_recording(row, 9000));
    store.close();
    let reader = Reader::open(&folder).unwrap();
    assert_eq!(requests(&folder, RequestFilter::default()).len(), 1);
    assert!(reader.usage(UsageGroup::Client, TODAY).unwrap().is_empty());
    let last = reader.recording("last").unwrap();
    assert_eq!(reader.turn_before(&last).unwrap().unwrap().id, "req_1");
    assert_eq!(reader.turn_before(&reader.recording("req_2").unwrap()).unwrap(), None);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_of_an_older_version_is_read_and_brought_up_to_date() {
    let folder = folder("older");
    write(&folder, &[row("anna", 10)]);
    let database = open(&folder).unwrap();
    database.execute_batch("DROP TABLE recordings; PRAGMA user_version = 1").unwrap();
    drop(database);
    assert_eq!(requests(&folder, RequestFilter::default()), [row("anna", 10)]);
    assert!(Reader::open(&folder).unwrap().recording("last").is_err());
    let (store, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    store.add_recording(recording("req_1", "s", 9), 9000);
    store.close();
    assert!(requests(&folder, RequestFilter::default())[0].is_recorded);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn recordings_that_wait_for_a_disk_that_hangs_have_a_limit() {
    let folder = folder("recordings-hang");
    let (store, _) = Store::open(folder.clone(), NOON, |_| {}).unwrap();
    // Another process writes, so that the writer waits.
    let other = open(&folder).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..20 {
        store.add_recording(recording(&format!("req_{number}"), "", 8 << 20), 1 << 30);
    }
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    store.close();
    let reader = Reader::open(&folder).unwrap();
    // A slow disk may need longer than a server waits for it at its end.
    let until = Instant::now() + Duration::from_secs(60);
    while reader.recording("req_0").is_err() && Instant::now() < until {}
    let kept = (0..20).filter(|number| reader.recording(&format!("req_{number}")).is_ok()).count();
    assert!((1..=9).contains(&kept), "{kept}");
    fs::remove_dir_all(&folder).unwrap();
}
