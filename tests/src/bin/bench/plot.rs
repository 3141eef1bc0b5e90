//! The scaling curves as a picture: both axes logarithmic, no library needed.

use std::fmt::Write as _;

/// One line of the picture: backlog and tasks per second.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 350.0;
const RIGHT: f64 = 490.0;
const TOP: f64 = 30.0;
const COLOURS: [&str; 6] = ["#888888", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];

/// The whole picture.
pub(crate) fn svg(curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let (x_low, x_high) = range(all().map(|(x, _)| x));
    let (y_low, y_high) = range(all().map(|(_, y)| y));
    let at = |x: f64, y: f64| {
        let along = (x.log10() - x_low) / (x_high - x_low);
        let up = (y.log10() - y_low) / (y_high - y_low);
        (LEFT + along * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP))
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\">claim + finish, tasks per second, by backlog</text>\n"
    );
    let mut put = |line: String| text.push_str(&line);
    for exponent in steps(x_low, x_high) {
        let (x, _) = at(10_f64.powi(exponent), 10_f64.powf(y_low));
        put(format!("<path d=\"M{x:.1} {TOP}V{BOTTOM}\" stroke=\"#eeeeee\"/>\n"));
        put(format!("<text x=\"{x:.1}\" y=\"368\" text-anchor=\"middle\">10^{exponent}</text>\n"));
    }
    for exponent in steps(y_low, y_high) {
        let (_, y) = at(10_f64.powf(x_low), 10_f64.powi(exponent));
        put(format!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#eeeeee\"/>\n"));
        put(format!("<text x=\"64\" y=\"{y:.1}\" text-anchor=\"end\">10^{exponent}</text>\n"));
    }
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut path = String::new();
        for (number, (x, y)) in curve.points.iter().enumerate() {
            let (x, y) = at(*x, *y);
            let verb = if number == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{x:.1} {y:.1}");
            put(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"));
        }
        put(format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"));
        let y = 40 + index * 18;
        put(format!("<text x=\"500\" y=\"{y}\" fill=\"{colour}\">{}</text>\n", curve.name));
    }
    text += "</svg>\n";
    text
}

/// Whole powers of ten around all values, as logarithms.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value.log10()), high.max(value.log10()))
    });
    let (low, high) = (low.floor(), high.ceil());
    if high > low { (low, high) } else { (low, low + 1.0) }
}

fn steps(low: f64, high: f64) -> impl Iterator<Item = i32> {
    #[expect(clippy::cast_possible_truncation, reason = "powers of ten are small numbers")]
    let (low, high) = (low as i32, high as i32);
    low..=high
}
