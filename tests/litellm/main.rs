//! LiteLLM configurations and what becomes of them; other programs' are in `others`. A case is a folder in `cases/`: `config.yaml`, and either
//! `hooks.lua` with `report.txt`, or `error.txt`; `environment.txt` has a NAME=VALUE for every variable that is set. `SPARKGAP_BLESS=1` writes what is expected anew; read the diff.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod behaviour;
mod others;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sparkgap::litellm::{self, KeyVerdict};

/// Reads a file where no environment variable is set.
pub(crate) fn translate(yaml: &str) -> Result<litellm::Import, litellm::ImportError> {
    litellm::import(yaml, context(&|_| None, &|_| Err("no such file".to_owned())))
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litellm/cases");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn yaml(case: &Path) -> String {
    fs::read_to_string(case.join("config.yaml")).unwrap()
}

/// Reads the file of a case, with the case's environment.
fn translate_case(case: &Path, yaml: &str) -> Result<litellm::Import, litellm::ImportError> {
    let environment = fs::read_to_string(case.join("environment.txt")).unwrap_or_default();
    let value = |name: &str| {
        let mut pairs = environment.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    let read = |path: &str| {
        let path = path.strip_prefix("/etc/").unwrap_or(path);
        fs::read_to_string(case.join(path)).map_err(|_| "no such file".to_owned())
    };
    litellm::import(yaml, context(&value, &read))
}

fn context<'v>(
    variable: litellm::Variable<'v>,
    read: litellm::ReadInclude<'v>,
) -> litellm::ImportContext<'v> {
    litellm::ImportContext { variable, path: "/etc/config.yaml", read, is_run: false }
}

fn check(file: &Path, actual: &str) {
    if std::env::var_os("SPARKGAP_BLESS").is_some() {
        fs::write(file, actual).unwrap();
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    assert!(expected == actual, "{} differs; it is now:\n{actual}", file.display());
}

#[test]
fn every_case_gives_what_is_expected() {
    for case in cases() {
        match translate_case(&case, &yaml(&case)) {
            Ok(import) => {
                let summary: String = import.summary.iter().map(|line| format!("{line}\n")).collect();
                let report: String = import.report.iter().map(|line| format!("{line}\n")).collect();
                let report = format!("{summary}\n{report}");
                check(&case.join("hooks.lua"), &import.lua);
                check(&case.join("report.txt"), &report);
                assert!(!case.join("error.txt").exists(), "{} succeeds", case.display());
            }
            Err(error) => {
                assert!(!case.join("hooks.lua").exists(), "{}: {error}", case.display());
                check(&case.join("error.txt"), &format!("{error}\n"));
            }
        }
    }
}

#[test]
fn a_third_of_the_cases_are_failures() {
    let all = cases();
    let failures = all.iter().filter(|case| case.join("error.txt").exists()).count();
    assert!(all.len() > 12 && failures * 3 >= all.len(), "{failures} of {}", all.len());
}

#[test]
fn the_lua_loads_and_names_only_what_is_there() {
    for case in cases() {
        if let Ok(import) = translate_case(&case, &yaml(&case)) {
            support::check_shape(&import.lua, &case.display().to_string());
        }
    }
}

#[test]
fn every_leaf_is_in_the_report_once() {
    for case in cases() {
        let yaml = yaml(&case);
        // Where aliases are written out, the file has fewer leaves than its meaning.
        if yaml.contains("<<:") || yaml.contains("include:") || case.ends_with("flow") {
            continue;
        }
        let Ok(import) = translate_case(&case, &yaml) else { continue };
        let reported = import.report.iter().map(|line| line.key.as_str());
        // A key that is there twice has a line of its own, and its first value none.
        let reported: Vec<&str> = reported.filter(|key| !key.contains(" (line ")).collect();
        if reported.len() < import.report.len() {
            continue;
        }
        assert_eq!(reported, support::leaves(&yaml), "{}", case.display());
        assert_eq!(reported.iter().collect::<BTreeSet<_>>().len(), reported.len());
        for line in &import.report {
            assert!(!line.note.is_empty(), "{line}");
        }
    }
}

#[test]
fn no_key_gets_into_the_lua_or_the_report() {
    let yaml = "model_list:\n- model_name: a\n  litellm_params:\n    model: openai/m\n    api_base: http://box:1\n    \
                api_key: sk-SECRET\ngeneral_settings:\n  master_key: sk-SECRET-2\nenvironment_variables:\n  X: SECRET-3\n";
    let import = translate(yaml).unwrap();
    let report: String = import.report.iter().map(|line| format!("{line}\n")).collect();
    let text = format!("{}{report}{:?}", import.lua, import.environment);
    assert!(!text.contains("SECRET"), "{text}");
    assert!(import.lua.contains("api_key = env \"BOX_KEY\""), "{}", import.lua);
    let values: Vec<(&str, &str)> =
        import.environment.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(values, [("BOX_KEY", "sk-SECRET"), ("X", "SECRET-3")]);
    assert!(
        matches!(import.master_key, Some(litellm::MasterKey::Literal(key)) if key.expose() == "sk-SECRET-2")
    );
}

/// Every prefix of every case is an import or an error with words, never a panic.
#[test]
fn cut_files_never_panic() {
    for case in cases() {
        let yaml = yaml(&case);
        for (end, _) in yaml.char_indices() {
            match translate_case(&case, yaml.split_at(end).0) {
                Ok(import) => assert!(import.report.iter().any(|line| line.verdict == KeyVerdict::Mapped)),
                Err(error) => assert!(!error.message.is_empty()),
            }
        }
    }
}

/// The file that the project began with, as its article prints it (with blank lines and all).
#[test]
fn the_article_s_file_is_the_user_case() {
    let user = yaml(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litellm/cases/user"));
    let article = user
        .replace("  - model_name: claude-3", "\n  - model_name: claude-3")
        .replace("litellm_s", "\nlitellm_s");
    let (user, article) = (translate(&user).unwrap(), translate(&article).unwrap());
    assert_eq!(user.lua, article.lua);
    assert_eq!(user.report, article.report);
    assert!(user.environment.is_empty() && user.master_key.is_none());
}

#[test]
fn large_files_are_read_in_time_or_refused() {
    let entry = |i: usize, name: &str| {
        format!(
            "- model_name: {name}{i}\n  litellm_params: {{model: openai/m, api_base: http://box:1, api_key: sk-{i}}}\n"
        )
    };
    let file =
        |n: usize, name: &str| format!("model_list:\n{}", (0..n).map(|i| entry(i, name)).collect::<String>());
    let import = translate(&file(1000, "a")).unwrap();
    assert_eq!(import.report.len(), 4000);
    assert!(import.lua.contains("[\"box-1000\"]") && import.lua.contains("BOX_1000_KEY"));
    assert!(translate(&file(1000, "a*")).is_ok());
    assert!(translate(&file(1001, "a")).unwrap_err().message.contains("the limit is 1000"));
    // One name with all entries, and thousands of other names for it.
    let entries: String = (0..1000)
        .map(|i| {
            format!("- {{model_name: a, litellm_params: {{model: openai/m, api_base: 'http://h{i}:1'}}}}\n")
        })
        .collect();
    let names: Vec<String> = (0..4000).map(|i| format!("x{i}: a")).collect();
    let aliases = format!("router_settings: {{model_group_alias: {{{}}}}}\n", names.join(", "));
    let import = translate(&format!("model_list:\n{entries}{aliases}")).unwrap();
    let left_out =
        import.report.iter().filter(|line| line.note.starts_with("left out: a name has at most 64"));
    assert_eq!(left_out.count(), 1000 - 64);
}
