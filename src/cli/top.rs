//! `top`: boxes, requests in progress and the last requests of a running sparkgap, in a terminal.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use super::activity::{ActivitySource, percent, short};
use super::arguments::Top;
use super::output::{Failed, note, print, print_exactly, print_json};
use super::remote;
use crate::json::Value;
use crate::shown::ShownText;

/// The time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two questions.
const EVERY: Duration = Duration::from_secs(1);

/// Moves the cursor to the first place and clears what is behind it.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// The ended requests that are shown.
const FINISHED_SHOWN: usize = 15;

/// `sparkgap top`: until it is interrupted, or once.
pub(super) fn run(options: &Top) -> Result<(), Failed> {
    let source = ActivitySource::new(remote::address(options.url.as_deref()), remote::key(None).as_deref())?;
    let is_once = options.once || (!options.json && !std::io::stdout().is_terminal());
    let mut has_begun = false;
    loop {
        match source.ask("", ANSWER_TIMEOUT) {
            Ok(activity) if options.json => print_json(&activity),
            Ok(activity) => {
                if !is_once {
                    print_exactly(CLEAR);
                }
                print(&screen(&activity));
            }
            // A server that restarts answers again soon.
            Err(failed) if has_begun => note(&format!("{failed}\n")),
            Err(failed) => return Err(failed),
        }
        if is_once {
            return Ok(());
        }
        has_begun = true;
        std::thread::sleep(EVERY);
    }
}

/// The text of one screen.
fn screen(activity: &Value<'_>) -> String {
    let rows = |key: &str| activity.get(key).and_then(Value::as_array).unwrap_or_default();
    let (in_flight, finished) = (rows("in_flight"), rows("finished"));
    let waiting = activity.get("waiting").and_then(Value::as_u64).unwrap_or_default();
    let version = cell(activity.get("version"), 16);
    let mut text = format!(
        "sparkgap {} \u{b7} {} in progress, {waiting} waiting\n",
        version.trim_end(),
        in_flight.len()
    );
    for (name, member) in
        activity.get("boxes").and_then(Value::as_object).into_iter().flat_map(|all| all.iter())
    {
        let number = |key: &str| member.get(key).and_then(Value::as_u64);
        let places = number("max_in_flight").map_or(String::new(), |places| format!("/{places}"));
        let seconds = number("for_seconds").unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {:16} {} for {seconds} s, {}{places} requests",
            ShownText::within(name, 16).to_string(),
            cell(member.get("state"), 5),
            number("in_flight").unwrap_or_default()
        );
    }
    text.push_str("\nNOW\n  phase   seconds  prompt  who              model                    box\n");
    for row in in_flight {
        let number = |key: &str| row.get(key).and_then(Value::as_u64).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {} {:>8} {:>7}  {} {} {}",
            cell(row.get("phase"), 7),
            number("total_ms") / 1000,
            short(number("prompt_estimate")),
            who(row),
            cell(row.get("model"), 24),
            cell(row.get("upstream"), 16).trim_end()
        );
    }
    text.push_str("\nLAST\n  status  seconds  prompt  cached   out  tok/s  who              model                    box\n");
    for row in finished.iter().rev().take(FINISHED_SHOWN) {
        let number = |key: &str| row.get(key).and_then(Value::as_u64).unwrap_or_default();
        let speed = row.get("tokens_per_second").and_then(Value::as_f64);
        let _ = writeln!(
            text,
            "  {:>6} {:>8} {:>7} {:>6}% {:>5} {:>6}  {} {} {}",
            number("status"),
            number("total_ms") / 1000,
            short(number("input_tokens")),
            percent(number("cached_tokens"), number("input_tokens")),
            short(number("output_tokens")),
            speed.map_or("-".to_owned(), |speed| format!("{speed:.0}")),
            who(row),
            cell(row.get("model"), 24),
            cell(row.get("upstream"), 16).trim_end()
        );
        if let Some(error) = row.get("error").and_then(Value::as_str) {
            let _ = writeln!(text, "         {}", ShownText::within(error, 100));
        }
    }
    text
}

/// The owner of the key, otherwise the address.
fn who(row: &Value<'_>) -> String {
    cell(row.get("user").filter(|user| !user.is_null()).or_else(|| row.get("client")), 16)
}

/// A text in a cell of a fixed width, which may hold anything.
fn cell(value: Option<&Value<'_>>, width: usize) -> String {
    let text = value.and_then(Value::as_str).unwrap_or("-");
    let shown: String = ShownText::new(text).to_string().chars().take(width).collect();
    format!("{shown:width$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_screen_shows_boxes_and_requests() {
        let mut text = br#"{"version":"0.1.0","waiting":1,"boxes":{"spark1":{"state":"well","for_seconds":7,"in_flight":2,"max_in_flight":8}},
            "in_flight":[{"phase":"stream","total_ms":4200,"prompt_estimate":38000,"user":"anna","model":"claude\u001b[2J","upstream":"spark1"}],
            "finished":[{"status":502,"total_ms":1,"client":"127.0.0.1","user":null,"model":"m","error":"no\nway"}]}"#.to_vec();
        let screen = screen(&json::parse(&mut text).unwrap());
        assert!(screen.contains("1 in progress, 1 waiting") && screen.contains("2/8 requests"), "{screen}");
        assert!(screen.contains("stream         4     38k  anna "), "{screen}");
        assert!(
            screen.contains("no\\nway") && screen.contains("127.0.0.1") && !screen.contains('\u{1b}'),
            "{screen}"
        );
        let nothing = super::screen(&Value::Null);
        assert!(nothing.contains("0 in progress"), "{nothing}");
    }
}
