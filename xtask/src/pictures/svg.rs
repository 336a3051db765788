//! A curve as an SVG file: two axes, a line for each who was measured, names beside their ends. Colours
//! follow what the reader's browser prefers, light or dark.

use std::fmt::Write;

use super::curves::{Curve, Scale};
use crate::bench::results::Point;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;
/// Between names, so that they do not lie on each other.
const LINE: f64 = 15.0;

const STYLE: &str = "\
text { font: 13px sans-serif; fill: #24292f }
.title { font-weight: bold; font-size: 15px }
.axis { stroke: #57606a } .grid { stroke: #d0d7de }
.line { fill: none; stroke-width: 2 }
.c0 { color: #0969da } .c1 { color: #bc4c00 } .c2 { color: #8250df } .c3 { color: #1a7f37 }
.c4 { color: #bf3989 } .c5 { color: #57606a }
.line, .dot { stroke: currentColor } .dot, text.name { fill: currentColor }
.c0 .line { stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  .back { fill: #0d1117 } text { fill: #e6edf3 } text.name { fill: currentColor } .axis { stroke: #8b949e } .grid { stroke: #30363d }
  .c0 { color: #58a6ff } .c1 { color: #f0883e } .c2 { color: #bc8cff } .c3 { color: #3fb950 }
  .c4 { color: #f778ba } .c5 { color: #9ea7b3 }
}
";

/// Numbers of one axis to places on it.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    /// Where the ends are.
    place: (f64, f64),
}

impl Axis {
    fn over(scale: Scale, values: impl Iterator<Item = f64> + Clone, place: (f64, f64)) -> Self {
        let (least, most) = (
            values.clone().fold(f64::INFINITY, f64::min),
            values.fold(f64::NEG_INFINITY, f64::max),
        );
        let (from, to) = match scale {
            Scale::Linear => (0.0, most * 1.05),
            Scale::Log => (least / 1.2, most * 1.2),
        };
        Self {
            scale,
            from,
            to,
            place,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        self.place.0 + part * (self.place.1 - self.place.0)
    }

    /// Where it is marked: round numbers, some four to eight of them.
    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = round(self.to / 5.0);
                let marks = (0..10).map(|number| f64::from(number) * step);
                marks.take_while(|mark| *mark <= self.to).collect()
            }
            Scale::Log => {
                let decades = (self.to / self.from).log10();
                let of_ten: &[f64] = match decades {
                    _ if decades > 2.5 => &[1.0],
                    _ if decades > 1.2 => &[1.0, 3.0],
                    _ => &[1.0, 2.0, 5.0],
                };
                let powers = (-9..12).map(|power| 10f64.powi(power));
                let marks = powers.flat_map(|power| of_ten.iter().map(move |mark| mark * power));
                marks
                    .filter(|mark| (self.from..=self.to).contains(mark))
                    .collect()
            }
        }
    }
}

/// The next of 1, 2, 5, 10, 20, … from `least`.
fn round(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(least)
}

/// A number as an axis to `most` has it: by the letter of thousands where they are many.
fn shown(mark: f64, most: f64) -> String {
    let (unit, letter) = match most {
        _ if most >= 2e6 => (1e6, "M"),
        _ if most >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    // What was multiplied from tenths is not quite the number it is.
    let number = (mark / unit * 1e9).round() / 1e9;
    let letter = if number == 0.0 { "" } else { letter };
    format!("{number}{letter}")
}

/// The lines in order, ours first and the plain file last: who has which colour.
fn lines<'a>(points: &[&'a Point]) -> Vec<(&'a str, Vec<&'a Point>)> {
    let mut lines: Vec<(&str, Vec<&Point>)> = Vec::new();
    for &point in points {
        match lines.iter_mut().find(|(name, _)| *name == point.line) {
            Some((_, line)) => line.push(point),
            None => lines.push((&point.line, vec![point])),
        }
    }
    for (_, line) in &mut lines {
        line.sort_by(|one, other| one.x.total_cmp(&other.x));
    }
    lines.sort_by_key(|(name, _)| match *name {
        "ours" => 0,
        "plain" => 2,
        _ => 1,
    });
    lines
}

/// The picture of `points`; there is one at least.
pub(super) fn draw(curve: &Curve, points: &[&Point]) -> String {
    let xs = points.iter().map(|point| point.x);
    let ys = points.iter().map(|point| point.y);
    let x = Axis::over(Scale::Log, xs.clone(), (LEFT, WIDTH - RIGHT));
    let y = Axis::over(curve.scale, ys, (HEIGHT - BOTTOM, TOP));
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
         <title>{}: {} by {}</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"24\">{}</text>",
        curve.title, curve.y, curve.x, curve.title
    );
    axes(&mut svg, curve, &x, &y, xs);
    let mut names: Vec<(f64, usize, &str)> = Vec::new();
    for (number, (name, line)) in lines(points).into_iter().enumerate() {
        let colour = number % 6;
        let places: Vec<_> = line.iter().map(|p| (x.at(p.x), y.at(p.y))).collect();
        let _ = write!(
            svg,
            "<g class=\"c{colour}\"><polyline class=\"line\" points=\""
        );
        for (x, y) in &places {
            let _ = write!(svg, "{x:.1},{y:.1} ");
        }
        svg.push_str("\"/>");
        for (x, y) in &places {
            let _ = write!(
                svg,
                "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"
            );
        }
        svg.push_str("</g>\n");
        let end = places.last().map_or(TOP, |place| place.1);
        names.push((end, colour, name));
    }
    write_names(&mut svg, names);
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, curve: &Curve, x: &Axis, y: &Axis, xs: impl Iterator<Item = f64>) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for mark in y.marks() {
        let (at, shown) = (y.at(mark), shown(mark, y.to));
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    // The sizes that were measured, for they are few.
    let mut marks: Vec<f64> = xs.collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        let (at, shown) = (x.at(mark), shown(mark, 0.0));
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{at:.1} {bottom}v5\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{shown}</text>",
            bottom + 20.0
        );
    }
    let (middle, upright) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
    let _ = writeln!(
        svg,
        "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\n\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
         <text transform=\"translate(20 {upright}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        HEIGHT - 14.0,
        curve.x,
        curve.y
    );
}

/// Names at the ends of their lines, from the top down, each a line below the other at least.
fn write_names(svg: &mut String, mut names: Vec<(f64, usize, &str)>) {
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = f64::NEG_INFINITY;
    for (end, colour, name) in names {
        let at = end.max(free);
        free = at + LINE;
        let _ = writeln!(
            svg,
            "<g class=\"c{colour}\"><text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{name}</text></g>",
            WIDTH - RIGHT + 8.0,
            at + 4.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers_within_the_axis() {
        let axis = |scale, values: [f64; 2]| Axis::over(scale, values.into_iter(), (0.0, 100.0));
        assert_eq!(
            axis(Scale::Linear, [1.0, 9.0]).marks(),
            [0.0, 2.0, 4.0, 6.0, 8.0]
        );
        assert_eq!(
            axis(Scale::Log, [1.0, 1000.0]).marks(),
            [1.0, 10.0, 100.0, 1000.0]
        );
        assert_eq!(shown(0.1 * 3.0, 1.0), "0.3");
        assert_eq!(shown(5000.0, 2e4), "5k");
    }

    #[test]
    fn larger_numbers_lie_further_along() {
        for scale in [Scale::Linear, Scale::Log] {
            let axis = Axis::over(scale, [1.0, 8.0].into_iter(), (100.0, 0.0));
            assert!(axis.at(8.0) < axis.at(4.0) && axis.at(4.0) < axis.at(1.0));
            assert!((0.0..=100.0).contains(&axis.at(1.0)));
        }
    }
}
