//! Draws frames over each other at the bottom of a terminal.

use super::frame::Size;

/// The lines on the screen.
#[derive(Debug, Default)]
pub(super) struct Screen {
    // The width of each drawn line, in columns.
    drawn: Vec<usize>,
}

impl Screen {
    /// Returns the bytes that replace the drawn lines with these. They hide the cursor only during the drawing, so that the
    /// terminal stays usable if the process is killed between two frames.
    pub fn draw(&mut self, lines: &[String], size: Size) -> String {
        let mut out = String::from("\u{1b}[?25l");
        out.push_str(&self.home(size));
        self.drawn.clear();
        for line in lines {
            out.push_str(line);
            // The rest of the old line.
            out.push_str("\u{1b}[K\n");
            self.drawn.push(super::text::width(line));
        }
        out.push_str("\u{1b}[J\u{1b}[?25h");
        out
    }

    /// Returns the bytes that erase the drawn lines, so that other text can be printed in their place.
    pub fn erase(&mut self, size: Size) -> String {
        if self.drawn.is_empty() {
            return String::new();
        }
        let home = self.home(size);
        self.drawn.clear();
        // The first line is erased separately. If the erased area begins in the top left corner, tmux takes it for a cleared
        // screen, and moves the frame into its history.
        format!("{home}\u{1b}[2K\u{1b}[1B\u{1b}[J\u{1b}[1A")
    }

    /// Returns the bytes that move the cursor to the first drawn line. If the terminal became narrower, it has wrapped the lines.
    fn home(&self, size: Size) -> String {
        let rows: usize = self.drawn.iter().map(|columns| columns.div_ceil(size.width.max(1)).max(1)).sum();
        match rows.min(size.height.saturating_sub(1)) {
            0 => "\r".to_owned(),
            up => format!("\r\u{1b}[{up}A"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(text: &str) -> Option<&str> {
        text.split_once("\r\u{1b}[")?.1.split_once('A').map(|(n, _)| n)
    }

    #[test]
    fn frames_replace_each_other() {
        let mut screen = Screen::default();
        let size = Size { width: 80, height: 24 };
        assert_eq!(screen.erase(size), "");
        let first = screen.draw(&["a".into(), "b".into()], size);
        assert_eq!(first, "\u{1b}[?25l\ra\u{1b}[K\nb\u{1b}[K\n\u{1b}[J\u{1b}[?25h");
        assert_eq!(up(&screen.draw(&["a".into()], size)), Some("2"));
        assert_eq!(up(&screen.erase(size)), Some("1"));
        assert_eq!(screen.erase(size), "");
    }

    #[test]
    fn a_narrower_terminal_has_wrapped() {
        let mut screen = Screen::default();
        screen.draw(&["x".repeat(79), "y".into()], Size { width: 80, height: 24 });
        assert_eq!(up(&screen.draw(&[], Size { width: 40, height: 24 })), Some("3"));
    }

    #[test]
    fn colours_take_no_columns() {
        let mut screen = Screen::default();
        screen.draw(&["\u{1b}[36mab\u{1b}[0m".into()], Size { width: 80, height: 24 });
        assert_eq!(screen.drawn, [2]);
    }
}
