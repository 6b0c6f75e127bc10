//! The step of load as a picture: replicas and p99 over time.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 260.0;
const RIGHT: f64 = 700.0;

/// An SVG: replicas as a filled step, p99 on a logarithmic scale as a line, the step of load as a mark.
pub fn draw(replicas: &[u64], p99: &[Option<f64>], step: u64) -> String {
    let seconds = replicas.len() as f64;
    let x = |second: f64| LEFT + (RIGHT - LEFT) * second / seconds;
    let most = replicas.iter().max().copied().unwrap_or(1).max(1) as f64;
    let count = |n: f64| BOTTOM - (BOTTOM - TOP) * n / most;
    // From a millisecond to ten seconds.
    let time = |seconds: f64| BOTTOM - (BOTTOM - TOP) * ((seconds * 1e3).max(1.0).log10() / 4.0).min(1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut area = format!("M{:.1},{BOTTOM}", x(0.0));
    for (second, n) in replicas.iter().enumerate() {
        let at = count(*n as f64);
        let _ = write!(area, " L{:.1},{at:.1} L{:.1},{at:.1}", x(second as f64), x(second as f64 + 1.0));
    }
    let _ = writeln!(svg, "<path d=\"{area} L{:.1},{BOTTOM} Z\" fill=\"#c6dbef\" stroke=\"#6baed6\"/>", x(seconds));
    let points: Vec<String> = p99
        .iter()
        .enumerate()
        .filter_map(|(second, took)| Some(format!("{:.1},{:.1}", x(second as f64 + 0.5), time((*took)?))))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#d94801\" stroke-width=\"2\"/>",
        points.join(" ")
    );
    let mark = x(step as f64);
    let _ = writeln!(
        svg,
        "<line x1=\"{mark:.1}\" y1=\"{TOP}\" x2=\"{mark:.1}\" y2=\"{BOTTOM}\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>\n\
         <text x=\"{:.1}\" y=\"20\" text-anchor=\"middle\" fill=\"#444\">500 requests/s</text>",
        mark
    );
    for n in 0..=most as u64 {
        if n % (most as u64 / 6 + 1) == 0 {
            let y = count(n as f64) + 4.0;
            let _ = writeln!(svg, "<text x=\"40\" y=\"{y:.1}\" text-anchor=\"end\" fill=\"#3182bd\">{n}</text>");
        }
    }
    for (took, text) in [(0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s")] {
        let y = time(took) + 4.0;
        let _ = writeln!(svg, "<text x=\"708\" y=\"{y:.1}\" fill=\"#d94801\">{text}</text>");
    }
    for second in (0..=replicas.len()).step_by(5) {
        let at = x(second as f64);
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"276\" text-anchor=\"middle\" fill=\"#444\">{second} s</text>");
    }
    svg.push_str("<text x=\"50\" y=\"294\" fill=\"#3182bd\">replicas</text>\n<text x=\"700\" y=\"294\" text-anchor=\"end\" fill=\"#d94801\">p99 of each second</text>\n</svg>\n");
    svg
}
