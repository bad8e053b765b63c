//! Help texts with the defaults in them: argh's texts are static, so an option's text names its default by a placeholder
//! such as `%listen%`.

use super::bench::ANTHROPIC_URL;
use super::remote::LOCAL;
use crate::app::RunOptions;
use crate::latency::BenchPlan;

/// The width at which argh breaks the lines of an option's text, and the column where the text begins.
const WIDTH: usize = 80;
const TEXT_COLUMN: usize = 20;

/// The help that argh made, with the defaults in the place of placeholders. The lines of an option's text are broken
/// anew, since a default is not as long as its placeholder.
pub(super) fn with_defaults(help: &str) -> String {
    let defaults = defaults();
    let mut text = String::with_capacity(help.len());
    let mut lines = help.lines().peekable();
    while let Some(line) = lines.next() {
        let mut entry = line.to_owned();
        if line.starts_with("  -") {
            while let Some(more) = lines.next_if(|line| line.starts_with(&" ".repeat(TEXT_COLUMN))) {
                entry.push(' ');
                entry.push_str(more.trim_start());
            }
            entry = wrapped(&filled(&entry, &defaults));
        }
        text.push_str(&entry);
        text.push('\n');
    }
    text
}

/// A text with these values in the place of their placeholders.
pub(super) fn filled(text: &str, defaults: &[(&'static str, String)]) -> String {
    defaults.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("%{name}%"), value))
}

/// An option and its text, broken into lines as argh does it.
fn wrapped(entry: &str) -> String {
    let mut words = entry.split_whitespace();
    let mut text = format!("  {}", words.next().unwrap_or_default());
    let mut words = words.peekable();
    // `--help, help` is one name that has a space in it.
    if text.ends_with(',') {
        text.push(' ');
        text.push_str(words.next().unwrap_or_default());
    }
    let mut width = text.len();
    if width >= TEXT_COLUMN {
        text.push('\n');
        width = 0;
    }
    let mut is_first = true;
    for word in words {
        let length = word.chars().count();
        if !is_first && width + length < WIDTH {
            text.push(' ');
            width += 1;
        } else {
            if !is_first {
                text.push('\n');
                width = 0;
            }
            text.push_str(&" ".repeat(TEXT_COLUMN - width));
            width = TEXT_COLUMN;
        }
        text.push_str(word);
        width += length;
        is_first = false;
    }
    text
}

/// The placeholders' names and the defaults.
pub(super) fn defaults() -> Vec<(&'static str, String)> {
    let RunOptions { listen, server, calls, patience, log_level, record, .. } = RunOptions::default();
    let BenchPlan { rounds, sizes, .. } = BenchPlan::default();
    let sizes: Vec<String> = sizes.iter().map(u64::to_string).collect();
    let seconds = |time: std::time::Duration| time.as_secs().to_string();
    vec![
        ("listen", listen),
        ("body_size_max", server.limits.body_size_max.to_string()),
        ("connections_max", server.connections_max.to_string()),
        ("head_timeout", seconds(server.head_timeout)),
        ("body_timeout", seconds(server.body_timeout)),
        ("body_total_timeout", seconds(server.body_total_timeout)),
        ("write_timeout", seconds(server.write_timeout)),
        ("keep_alive", seconds(server.keep_alive)),
        ("drain", seconds(server.drain)),
        ("connect_timeout", seconds(calls.connect_timeout)),
        ("first_byte_timeout", seconds(calls.first_byte_timeout)),
        ("idle_timeout", seconds(calls.idle_timeout)),
        ("hang_after", seconds(calls.hang_after)),
        ("open_after", seconds(patience.open_after)),
        ("ping_every", seconds(patience.ping_every)),
        ("usage_every", seconds(patience.usage_every)),
        ("wait_for_upstream", seconds(patience.wait_for_upstream)),
        ("record_size", format!("{}M", record.size_max >> 20)),
        ("log_level", log_level.as_str().to_lowercase()),
        ("local_url", LOCAL.to_owned()),
        ("rounds", rounds.to_string()),
        ("sizes", sizes.join(",")),
        ("anthropic_url", ANTHROPIC_URL.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_takes_the_place_of_its_placeholder() {
        let help = [
            "Usage: x",
            "",
            "Options:",
            "  --listen          address to listen on (%listen%)",
            "  --first-byte-timeout",
            "                    seconds until the first byte",
            "                    (%first_byte_timeout%): its queue and the whole prefill",
            "  --help, help      display usage information",
            "",
            "Notes:",
            "  100 %",
            "",
        ];
        let expected = [
            "Usage: x",
            "",
            "Options:",
            "  --listen          address to listen on (127.0.0.1:4000)",
            "  --first-byte-timeout",
            "                    seconds until the first byte (1800): its queue and the whole",
            "                    prefill",
            "  --help, help      display usage information",
            "",
            "Notes:",
            "  100 %",
            "",
        ];
        assert_eq!(with_defaults(&help.join("\n")), expected.join("\n"));
    }

    #[test]
    fn a_running_sparkgap_is_asked_where_it_listens_by_default() {
        assert_eq!(LOCAL, format!("http://{}", RunOptions::default().listen));
    }
}
