//! The results of rounds, and the table made of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::target::Kind;

/// The goal that a row of the table is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    None,
    /// At most this much.
    Max(f64),
    /// At most this many times haproxy's figure.
    MaxOfHaproxy(f64),
    /// At least this many times haproxy's figure.
    MinOfHaproxy(f64),
}

/// A row: its quantity, its unit, its goal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) goal: Goal,
}

/// The figures by row and kind, one for each round.
#[derive(Default)]
pub(crate) struct Results(BTreeMap<(&'static str, Kind), Vec<f64>>);

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The number with three significant digits, and with thousands separated.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e3 => {
            let whole = format!("{value:.0}");
            let (head, tail) = whole.split_at(whole.len() - 3);
            format!("{head},{tail}")
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        0.0 => "0".to_string(),
        _ => format!("{value:.3}"),
    }
}

impl Results {
    pub(crate) fn add(&mut self, row: &'static str, kind: Kind, value: f64) {
        self.0.entry((row, kind)).or_default().push(value);
    }

    pub(crate) fn get(&self, row: &'static str, kind: Kind) -> &[f64] {
        self.0.get(&(row, kind)).map_or(&[], Vec::as_slice)
    }

    /// The median of the figure of each round divided by haproxy's figure of the same round.
    fn ratio(&self, row: &'static str) -> f64 {
        let ours = self.get(row, Kind::Sparkgap).iter();
        let ratios: Vec<f64> =
            ours.zip(self.get(row, Kind::Haproxy)).map(|(our, their)| our / their).collect();
        median(&ratios)
    }

    fn cell(&self, row: &'static str, kind: Kind) -> String {
        let values = self.get(row, kind);
        if values.is_empty() {
            return "-".to_string();
        }
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let middle = short(median(values));
        match (short(least), short(most)) {
            (least, most) if least == most => middle,
            (least, most) => format!("{middle} ({least} – {most})"),
        }
    }

    fn goal(&self, row: Row) -> (String, &'static str) {
        let ours = median(self.get(row.id, Kind::Sparkgap));
        let (text, is_met) = match row.goal {
            Goal::None => return ("-".to_string(), ""),
            Goal::Max(most) => (format!("≤ {}", short(most)), ours <= most),
            Goal::MaxOfHaproxy(times) => (format!("≤ {times} × haproxy"), self.ratio(row.id) <= times),
            Goal::MinOfHaproxy(times) => (format!("≥ {times} × haproxy"), self.ratio(row.id) >= times),
        };
        let no_ratio = !matches!(row.goal, Goal::Max(_)) && self.ratio(row.id).is_nan();
        (
            text,
            if no_ratio || ours.is_nan() {
                "?"
            } else if is_met {
                "yes"
            } else {
                "**no**"
            },
        )
    }

    /// The table in Markdown, for the kinds that were measured.
    pub(crate) fn markdown(&self, rows: &[Row], kinds: &[Kind]) -> String {
        let mut text = String::from("| |");
        kinds.iter().for_each(|kind| write!(text, " {} |", kind.name()).unwrap());
        text.push_str(" ratio to haproxy | goal | met |\n|---|");
        text.push_str(&"--:|".repeat(kinds.len() + 1));
        text.push_str("---|---|\n");
        for row in rows.iter().filter(|row| !self.get(row.id, Kind::Sparkgap).is_empty()) {
            write!(text, "| {} |", row.title).unwrap();
            kinds.iter().for_each(|kind| write!(text, " {} |", self.cell(row.id, *kind)).unwrap());
            let ratio = self.ratio(row.id);
            let ratio = if ratio.is_nan() { "-".to_string() } else { short(ratio) };
            let (goal, met) = self.goal(*row);
            writeln!(text, " {ratio} | {goal} | {met} |").unwrap();
        }
        text
    }
}
