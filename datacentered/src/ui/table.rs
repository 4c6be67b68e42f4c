//! Tables that fit the terminal.

use comfy_table::{ContentArrangement, Table, presets};
use rustix::termios;

/// Narrower than this, wrapped cells are harder to read than lines that the terminal wraps.
const NARROWEST: u16 = 40;

/// A table with a header and no lines, as wide as the terminal at most; as wide as it needs where there is none.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    layout(header, rows, terminal_width())
}

/// The width of the terminal on standard output. One that does not know its width, or says nonsense, has none.
fn terminal_width() -> Option<u16> {
    let size = termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    plausible(size.ws_col)
}

fn plausible(width: u16) -> Option<u16> {
    (width >= NARROWEST).then_some(width)
}

fn layout<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        // The width is ours to find out.
        .force_no_tty()
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table.add_rows(rows);
    if let Some(width) = width {
        table.set_width(width);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Names and values under each other, for one thing.
pub(crate) fn fields(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let rows: Vec<_> = rows.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[String; 2]> {
        vec![
            ["web1".into(), "online for a long time, and it is to stay so".into()],
            ["db1".into(), "offline".into()],
        ]
    }

    #[test]
    fn wide_enough() {
        insta::assert_snapshot!(layout(["NAME", "STATE"], rows(), None), @r"
        NAME  STATE
        web1  online for a long time, and it is to stay so
        db1   offline
        ");
    }

    #[test]
    fn narrow_terminals_wrap() {
        let text = layout(["NAME", "STATE"], rows(), Some(30));
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
        assert!(text.lines().count() > 3);
    }

    #[test]
    fn widths_that_make_no_sense_are_unknown() {
        assert_eq!([0, 1, 39, 40, 200].map(plausible), [None, None, None, Some(40), Some(200)]);
    }

    #[test]
    fn fields_line_up_and_empty_ones_are_left_out() {
        let text = fields([("id", "1".to_owned()), ("labels", String::new()), ("kernel", "6.1".to_owned())]);
        assert_eq!(text, "id      1\nkernel  6.1");
    }
}
