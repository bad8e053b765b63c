//! A line chart as SVG, with logarithmic axes.

use std::fmt::Write as _;
use std::path::Path;

use super::table::short;

/// One line of a chart.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart of some lines.
pub(crate) struct Chart<'c> {
    pub(crate) title: &'c str,
    pub(crate) x: &'c str,
    pub(crate) y: &'c str,
    pub(crate) lines: Vec<Line>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 160.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const LABEL_HEIGHT: f64 = 14.0;
const COLOURS: [&str; 5] = ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed"];

/// One axis: converts values to pixels.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (least, most) = values
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        Axis {
            least: least.log10().floor(),
            most: most.log10().ceil().max(least.log10().floor() + 1.0),
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (value.max(1e-12).log10() - self.least) / (self.most - self.least) * (self.to - self.from)
    }

    fn decades(&self) -> Vec<f64> {
        let mut decades = Vec::new();
        let mut exponent = self.least;
        while exponent <= self.most {
            decades.push(10_f64.powf(exponent));
            exponent += 1.0;
        }
        decades
    }
}

impl Chart<'_> {
    /// Writes the chart to a file.
    pub(crate) fn save(&self, file: &Path) {
        std::fs::write(file, self.svg()).unwrap();
    }

    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let x = Axis::new(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::new(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/><text x="{LEFT}" y="22" font-size="15">{}</text>"##,
            self.title
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for value in x.decades() {
            let (at, text) = (x.place(value), short(value));
            write!(svg, r##"<path d="M{at:.1} {TOP}V{bottom}" stroke="#ddd"/><text x="{at:.1}" y="{}" text-anchor="middle">{text}</text>"##, bottom + 18.0).unwrap();
        }
        for value in y.decades() {
            let (at, text) = (y.place(value), short(value));
            write!(svg, r##"<path d="M{LEFT} {at:.1}H{right}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{text}</text>"##, LEFT - 6.0, at + 4.0).unwrap();
        }
        write!(
            svg,
            r#"<text x="{}" y="{}" text-anchor="middle">{}</text><text transform="translate(16 {}) rotate(-90)" text-anchor="middle">{}</text>"#,
            f64::midpoint(LEFT, right),
            HEIGHT - 12.0,
            self.x,
            f64::midpoint(TOP, bottom),
            self.y
        )
        .unwrap();
        for (at, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let path: Vec<String> = line
                .points
                .iter()
                .map(|(px, py)| format!("{:.1} {:.1}", x.place(*px), y.place(*py)))
                .collect();
            write!(svg, r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, path.join("L"))
                .unwrap();
            for (px, py) in &line.points {
                write!(
                    svg,
                    r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#,
                    x.place(*px),
                    y.place(*py)
                )
                .unwrap();
            }
        }
        for (at, height) in self.label_heights(&y) {
            let (colour, name) = (COLOURS[at % COLOURS.len()], &self.lines[at].name);
            write!(svg, r#"<text x="{}" y="{height:.1}" fill="{colour}">{name}</text>"#, right + 8.0)
                .unwrap();
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The height of each line's name: at the line's end, but below the name above it.
    fn label_heights(&self, y: &Axis) -> Vec<(usize, f64)> {
        let end = |line: &Line| line.points.last().map_or(TOP, |point| y.place(point.1)) + 4.0;
        let mut heights: Vec<(usize, f64)> = self.lines.iter().map(end).enumerate().collect();
        heights.sort_by(|one, other| one.1.total_cmp(&other.1));
        let mut least = 0.0_f64;
        for (_, height) in &mut heights {
            *height = height.max(least);
            least = *height + LABEL_HEIGHT;
        }
        heights
    }
}
