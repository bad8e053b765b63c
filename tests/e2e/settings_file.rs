//! `sparkgap claude --settings` and `--undo`: the settings file of a person.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::server::{Server, output_in};
use super::upstream::Upstream;

/// A folder for Claude Code's settings, with a sparkgap.
struct Person {
    folder: PathBuf,
    url: String,
    _server: Server,
    _upstream: Upstream,
}

impl Person {
    fn new(name: &str) -> Person {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("settings-{name}"));
        // It may be left from an earlier run.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let upstream = Upstream::start();
        let server = Server::start(&upstream);
        Person { folder, url: format!("http://{}", server.address), _server: server, _upstream: upstream }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("settings.json")
    }

    fn run_at(&self, url: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let folder = self.folder.to_str().unwrap();
        let set = [("SPARKGAP_URL", url), ("SPARKGAP_API_KEY", "sk-mine"), ("CLAUDE_CONFIG_DIR", folder)];
        let (code, stdout, stderr) = output_in(&[&["claude", "--settings"], arguments].concat(), &set);
        (code, stdout + &stderr)
    }

    fn write(&self) {
        let (code, text) = self.run_at(&self.url, &[]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("Take it back: sparkgap claude --settings --undo"), "{text}");
    }

    /// Runs a command that fails with this reason.
    fn fails(&self, arguments: &[&str], reason: &str) {
        let (code, text) = self.run_at(&self.url, arguments);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(reason), "{text}");
    }

    fn undo(&self) {
        let (code, text) = self.run_at("http://127.0.0.1:1", &["--undo"]);
        assert_eq!(code, Some(0), "undoing needs no sparkgap: {text}");
    }

    fn settings(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path()).unwrap()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn settings_are_merged_and_come_back_byte_for_byte() {
    let person = Person::new("merged");
    let old = "\u{feff}{\"permissions\" : {\"allow\":[\"Bash(ls)\"]},\n\t\"env\": {\"ANTHROPIC_BASE_URL\":\"http://other\",\"MINE\":\"1\"},\r\n \"skipWebFetchPreflight\": false }\n\n";
    fs::write(person.path(), old).unwrap();
    fs::set_permissions(person.path(), fs::Permissions::from_mode(0o640)).unwrap();
    person.write();
    let settings = person.settings();
    assert_eq!(settings["env"]["ANTHROPIC_BASE_URL"], person.url);
    assert_eq!(settings["env"]["ANTHROPIC_AUTH_TOKEN"], "sk-mine");
    assert_eq!(settings["env"]["CLAUDE_CODE_MAX_CONTEXT_TOKENS"], "8192");
    assert_eq!(
        (&settings["env"]["MINE"], &settings["permissions"]["allow"][0]),
        (&json!("1"), &json!("Bash(ls)"))
    );
    assert_eq!(settings["skipWebFetchPreflight"], false, "the person's own setting wins");
    let mode = fs::metadata(person.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "it holds a key now");
    // Once more, as after a new key: what was there before stays known.
    person.write();
    person.undo();
    assert_eq!(fs::read(person.path()).unwrap(), old.as_bytes());
    assert_eq!(fs::metadata(person.path()).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(person.names(), ["settings.json"]);
    person.fails(&["--undo"], "there is nothing to undo");
}

#[test]
fn a_file_that_was_not_there_is_taken_away() {
    let person = Person::new("new");
    fs::remove_dir(&person.folder).unwrap();
    person.write();
    assert_eq!(fs::metadata(&person.folder).unwrap().permissions().mode() & 0o777, 0o700);
    person.undo();
    assert!(person.names().is_empty());
}

#[test]
fn what_was_changed_since_is_kept() {
    let person = Person::new("since");
    fs::write(person.path(), r#"{"env":{"ANTHROPIC_MODEL":"old","NO_PROXY":"a"},"theme":"dark"}"#).unwrap();
    person.write();
    for _ in 0..2 {
        let mut settings = person.settings();
        settings["permissions"] = json!({"allow": ["Read"]});
        settings["theme"] = "light".into();
        settings["env"]["ANTHROPIC_MODEL"] = "chosen".into();
        settings["env"]["NO_PROXY"] = "b".into();
        settings["env"]["LATER"] = "1".into();
        fs::write(person.path(), settings.to_string()).unwrap();
        // Written again between the two rounds, nothing of that may become sparkgap's own.
        person.write();
    }
    person.undo();
    let expected = json!({"env": {"ANTHROPIC_MODEL": "chosen", "NO_PROXY": "b", "LATER": "1"}, "theme": "light", "permissions": {"allow": ["Read"]}});
    assert_eq!(person.settings(), expected);
    assert_eq!(person.names(), ["settings.json"]);
}

#[test]
fn a_file_that_was_removed_since_comes_back_as_it_was() {
    let person = Person::new("removed");
    for old in [Some("{ \"theme\": 1 }"), None] {
        if let Some(old) = old {
            fs::write(person.path(), old).unwrap();
        }
        person.write();
        fs::remove_file(person.path()).unwrap();
        person.undo();
        assert_eq!(fs::read_to_string(person.path()).ok().as_deref(), old);
        // There may be none.
        let _ = fs::remove_file(person.path());
        assert!(person.names().is_empty());
    }
}

#[test]
fn half_of_what_was_kept_is_a_reason_to_stop() {
    let person = Person::new("half");
    fs::write(person.path(), "{}").unwrap();
    person.write();
    fs::remove_file(person.folder.join("settings.json.by-sparkgap")).unwrap();
    let before = fs::read(person.path()).unwrap();
    person.fails(&[], "settings.json.by-sparkgap is missing");
    person.fails(&["--undo"], "there is nothing to undo");
    assert_eq!(fs::read(person.path()).unwrap(), before);
}

#[test]
fn sparkgap_s_settings_are_never_taken_for_the_person_s() {
    let person = Person::new("own");
    fs::write(person.path(), "{}").unwrap();
    person.write();
    let written = fs::read(person.path()).unwrap();
    fs::remove_file(person.folder.join("settings.json.before-sparkgap")).unwrap();
    person.fails(&[], "settings.json.before-sparkgap is missing");
    assert_eq!(fs::read(person.path()).unwrap(), written);
    // After a crash between the last two steps of undoing, the file is the person's.
    fs::write(person.path(), "{ }").unwrap();
    person.write();
    person.undo();
    assert_eq!(fs::read(person.path()).unwrap(), b"{ }");
}

#[test]
fn a_key_that_stands_twice_comes_back_twice() {
    let person = Person::new("twice");
    let old = r#"{"env":{"A":"1"},"env":{"ANTHROPIC_BASE_URL":"http://other"},"a":1,"a":2}"#;
    fs::write(person.path(), old).unwrap();
    for _ in 0..2 {
        person.write();
        assert_eq!(person.settings()["env"]["ANTHROPIC_BASE_URL"], person.url);
    }
    person.undo();
    assert_eq!(fs::read_to_string(person.path()).unwrap(), old);
}

#[test]
fn a_file_is_not_made_larger_than_it_may_be() {
    let person = Person::new("large");
    let old = format!("{{\"a\":\"{}\"}}", "x".repeat(8 * 1024 * 1024 - 100));
    fs::write(person.path(), &old).unwrap();
    person.fails(&[], "or would have");
    assert_eq!(fs::read_to_string(person.path()).unwrap(), old);
    assert_eq!(person.names(), ["settings.json"]);
}

#[test]
fn nothing_is_written_where_something_is_wrong() {
    let person = Person::new("wrong");
    for (text, reason) in [
        ("{\"a\":", "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ("// no\n{}", "is not a JSON object"),
    ] {
        fs::write(person.path(), text).unwrap();
        person.fails(&[], reason);
        assert_eq!(fs::read(person.path()).unwrap(), text.as_bytes());
        assert_eq!(person.names(), ["settings.json"]);
    }
    fs::remove_file(person.path()).unwrap();
    let (code, text) = person.run_at("http://127.0.0.1:1", &[]);
    assert!(code == Some(1) && text.contains("no sparkgap answers"), "{text}");
    assert!(person.names().is_empty(), "a sparkgap that does not answer changes nothing");
}

#[test]
fn no_link_is_followed() {
    let person = Person::new("links");
    let target = person.folder.with_extension("target");
    fs::write(&target, "{\"theirs\":1}").unwrap();
    for name in ["settings.json", "settings.json.before-sparkgap", "settings.json.by-sparkgap"] {
        symlink(&target, person.folder.join(name)).unwrap();
        person.fails(&[], "is a link");
        assert_eq!(fs::read(&target).unwrap(), b"{\"theirs\":1}", "{name}");
        assert_eq!(person.names(), [name]);
        fs::remove_file(person.folder.join(name)).unwrap();
    }
    // A link in the place of the new file is replaced, not followed.
    symlink(&target, person.folder.join(".settings.json.new-sparkgap")).unwrap();
    person.write();
    assert_eq!(fs::read(&target).unwrap(), b"{\"theirs\":1}");
    person.undo();
    // A folder instead of the file, and a link instead of the folder.
    fs::create_dir(person.path()).unwrap();
    person.fails(&[], "not a file");
    fs::remove_dir(person.path()).unwrap();
    fs::remove_dir(&person.folder).unwrap();
    let other = person.folder.with_extension("other");
    fs::create_dir_all(&other).unwrap();
    symlink(&other, &person.folder).unwrap();
    person.fails(&[], "is a link");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    fs::remove_file(&person.folder).unwrap();
}
