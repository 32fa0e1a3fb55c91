//! A writer of small SVG documents.

use std::fmt::Write;

/// Where a text is anchored.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    /// The text begins there.
    Start,
    /// The text is centred there.
    Middle,
    /// The text ends there.
    End,
}

/// A document being written. Lengths are pixels, y grows downwards.
pub struct Svg(String);

impl Svg {
    /// A white page with a title for those who cannot see it.
    pub fn new(width: f64, height: f64, title: &str) -> Svg {
        let mut svg = Svg(String::new());
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" role=\"img\">"
        ));
        svg.push(format_args!("<title>{}</title>", escape(title)));
        svg.rect((0.0, 0.0), (width, height), "#ffffff");
        svg
    }

    /// A filled rectangle, from its upper left corner.
    pub fn rect(&mut self, corner: (f64, f64), size: (f64, f64), fill: &str) {
        let ((x, y), (width, height)) = (corner, size);
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{fill}\"/>"
        ));
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             stroke=\"{stroke}\" stroke-width=\"{width}\"/>"
        ));
    }

    /// Vertical strokes of one height at many places, as one element.
    pub fn strokes(&mut self, places: &[f64], top: f64, height: f64, stroke: &str) {
        if places.is_empty() {
            return;
        }
        let mut path = String::new();
        for x in places {
            // Writing to a String cannot fail.
            let _ = write!(path, "M{x:.1} {top:.1}v{height:.1}");
        }
        self.push(format_args!("<path d=\"{path}\" stroke=\"{stroke}\" stroke-width=\"1\" fill=\"none\"/>"));
    }

    /// A filled outline through these points.
    pub fn area(&mut self, points: &[(f64, f64)], fill: &str, stroke: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        self.push(format_args!(
            "<polygon points=\"{}\" fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"1\"/>",
            path.trim_end()
        ));
    }

    /// A text on its base line.
    pub fn text(&mut self, at: (f64, f64), anchor: Anchor, size: f64, fill: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y) = at;
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" \
             fill=\"{fill}\">{}</text>",
            escape(text)
        ));
    }

    /// The document's text.
    pub fn finish(mut self) -> String {
        self.push(format_args!("</svg>"));
        self.0
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{element}");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
