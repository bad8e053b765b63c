//! `usage`: the requests, tokens and costs of each client, model or day, from the state folder.

use super::arguments::UsageCommand;
use super::history::{ago, money, open};
use super::output::{Failed, print, print_json};
use crate::json::Value;
use crate::shown::ShownText;
use crate::state::{UsageRow, day_of};

/// `sparkgap usage`: a table, JSON or CSV.
pub(super) fn run(options: UsageCommand) -> Result<(), Failed> {
    if options.json && options.csv {
        return Err("--json and --csv exclude each other".to_owned());
    }
    let since = day_of(ago(options.since).as_secs());
    let rows = open(options.state)?.usage(options.by, &since)?;
    let by = options.by.name();
    if options.json {
        rows.iter().for_each(|row| print_json(&to_json(by, row)));
    } else if options.csv {
        print(&to_csv(by, &rows));
    } else if rows.is_empty() {
        print(&format!("no usage since {since} (UTC)\n"));
    } else {
        print(&to_table(by, &rows));
    }
    Ok(())
}

fn to_json<'r>(by: &'static str, row: &'r UsageRow) -> Value<'r> {
    Value::object([
        (by, row.name.as_str().into()),
        ("requests", row.requests.into()),
        ("prompt_tokens", row.prompt.into()),
        ("cached_tokens", row.cached.into()),
        ("output_tokens", row.output.into()),
        ("cost", money(row.cost).into()),
    ])
}

fn to_csv(by: &str, rows: &[UsageRow]) -> String {
    let mut text = format!("{by},requests,prompt_tokens,cached_tokens,output_tokens,cost\n");
    for row in rows {
        let UsageRow { name, requests, prompt, cached, output, cost } = row;
        // RFC 4180: a quote within quotes is doubled. A line end would look like a row, so it is shown as an escape.
        let name = ShownText::whole(name).to_string().replace('"', "\"\"");
        // A spreadsheet takes these beginnings for a formula. Clients choose the names of models.
        let mark = if name.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
        text.push_str(&format!("\"{mark}{name}\",{requests},{prompt},{cached},{output},{}\n", money(*cost)));
    }
    text
}

/// A table with a line for each row, and the sum of all.
fn to_table(by: &str, rows: &[UsageRow]) -> String {
    let mut total = UsageRow { name: "all".to_owned(), ..UsageRow::default() };
    for row in rows {
        total.requests += row.requests;
        total.prompt += row.prompt;
        total.cached += row.cached;
        total.output += row.output;
        total.cost += row.cost;
    }
    let names: Vec<String> = rows.iter().map(|row| ShownText::new(&row.name).to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).chain([by.len(), 3]).max().unwrap_or(0);
    let has_cost = total.cost > 0;
    let head = if has_cost { "          cost" } else { "" };
    let mut text = format!("{by:width$}   requests         prompt         cached         output{head}\n");
    for (name, row) in names.iter().map(String::as_str).chain(["all"]).zip(rows.iter().chain([&total])) {
        let UsageRow { requests, prompt, cached, output, cost, .. } = row;
        text.push_str(&format!("{name:width$} {requests:>10} {prompt:>14} {cached:>14} {output:>14}"));
        if has_cost {
            text.push_str(&format!(" {:>13}", money(*cost)));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_cell() {
        let row = |name: &str| UsageRow { name: name.to_owned(), requests: 1, ..UsageRow::default() };
        let rows = [row("a\"b\nc"), row("anna")];
        let csv = to_csv("client", &rows);
        assert_eq!(csv.lines().nth(1), Some("\"a\"\"b\\nc\",1,0,0,0,0.000000"));
        for (name, cell) in [("=cmd|calc!A1", "\"'=cmd|calc!A1\","), ("@x", "\"'@x\","), ("a=b", "\"a=b\",")]
        {
            assert!(to_csv("model", &[row(name)]).lines().nth(1).unwrap().starts_with(cell));
        }
        let table = to_table("client", &rows);
        assert_eq!(table.lines().count(), 4);
        assert!(!table.contains("cost") && table.ends_with(" 0\n"), "{table}");
        let paid = to_table("client", &[UsageRow { cost: 1_500_000, ..row("anna") }]);
        assert!(paid.ends_with(" 1.500000\n"), "{paid}");
    }
}
