//! Draws a [`View`]. 80 × 24 characters have all of it; more are used for the heat map, fewer get a few lines of text.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Widget};
use reports::format;

use super::view::View;
use crate::buckets::{self, Buckets, PER_OCTAVE};

/// Smallest screen with boxes and heat map, columns and rows.
const WHOLE_MIN: (u16, u16) = (72, 18);

/// Of the boxes, with their frames.
const BOX_ROWS: u16 = 7;

/// Before a row of the heat map: its smallest time.
const LABEL_COLUMNS: u16 = 9;

/// From few to many.
const SHADES: [&str; 5] = ["·", "░", "▒", "▓", "█"];

/// How things look: in colours, or by weight alone (`NO_COLOR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    accent: Style,
    soft: Style,
    fault: Style,
}

impl Look {
    /// Colours are those of the terminal's own palette, so that they fit a dark and a light one. None of them says what no word says.
    pub fn new(has_colours: bool) -> Self {
        let plain = Style::new();
        match has_colours {
            true => Self {
                accent: plain.fg(Color::Cyan),
                soft: plain.add_modifier(Modifier::DIM),
                fault: plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            },
            false => Self {
                accent: plain,
                soft: plain.add_modifier(Modifier::DIM),
                fault: plain.add_modifier(Modifier::BOLD),
            },
        }
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, view: &View, look: Look) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < WHOLE_MIN.0 || area.height < WHOLE_MIN.1 {
        return small(area, buffer, view, look);
    }
    let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Length(BOX_ROWS), Constraint::Min(0)];
    let [head, gauge, boxes, rest] = Layout::vertical(rows).areas(area);
    let [map, sentence, keys] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(1), Constraint::Length(1)]).areas(rest);
    header(head, buffer, view, look);
    progress(gauge, buffer, view, look);
    let thirds = [Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(1)];
    let [rate, times, server] = Layout::horizontal(thirds).areas(boxes);
    rates(rate, buffer, view, look);
    percentiles(times, buffer, view, look);
    target(server, buffer, view, look);
    heat_map(map, buffer, view, look);
    let last = view.sentences.back().map_or("", String::as_str);
    Paragraph::new(last).style(look.soft).render(sentence, buffer);
    footer(keys, buffer, view, look);
}

/// On a screen that is too small for more.
fn small(area: Rect, buffer: &mut Buffer, view: &View, look: Look) {
    let mut lines = vec![
        Line::from(what(view)),
        Line::from(format!("{}, about {} left", percent(view), left(view))),
        fact("rate", &achieved(view), look),
    ];
    lines.extend(percentile_lines(view, look));
    lines.push(errors(view, look));
    lines.push(Line::styled(keys(view), look.soft));
    Paragraph::new(lines).render(area, buffer);
}

fn what(view: &View) -> String {
    format!("{} · {} {} s", view.subject, view.phase, view.phase_seconds())
}

fn percent(view: &View) -> String {
    format!("{:.0} %", view.share() * 100.0)
}

fn left(view: &View) -> String {
    match view.left().as_secs() {
        seconds if seconds >= 120 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{seconds} s"),
    }
}

fn header(area: Rect, buffer: &mut Buffer, view: &View, look: Look) {
    let right = format!("about {} left", left(view));
    let [start, end] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(right.chars().count() as u16)]).areas(area);
    let what = Span::styled(what(view), Style::new().add_modifier(Modifier::BOLD));
    Paragraph::new(Line::from(vec![Span::styled("millrace  ", look.soft), what])).render(start, buffer);
    Paragraph::new(right).render(end, buffer);
}

fn progress(area: Rect, buffer: &mut Buffer, view: &View, look: Look) {
    let text = format!(" {}", percent(view));
    let width = usize::from(area.width).saturating_sub(6);
    let done = (view.share() * width as f64).round() as usize;
    let line = vec![
        Span::styled("━".repeat(done), look.accent),
        Span::styled("─".repeat(width - done), look.soft),
        Span::raw(text),
    ];
    Paragraph::new(Line::from(line)).render(area, buffer);
}

/// A box; what is inside of its frame.
fn framed(area: Rect, buffer: &mut Buffer, title: &str, look: Look) -> Rect {
    let block = Block::bordered().border_style(look.soft).title(Span::raw(format!(" {title} ")));
    let inside = block.inner(area);
    block.render(area, buffer);
    inside
}

fn fact<'a>(name: &str, value: &str, look: Look) -> Line<'a> {
    Line::from(vec![Span::styled(format!("{name:<10}"), look.soft), Span::raw(value.to_owned())])
}

fn known<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| format::UNKNOWN.to_owned(), text)
}

fn achieved(view: &View) -> String {
    known(view.achieved_per_s(), |per_s| format::rate(per_s as f64))
}

fn rates(area: Rect, buffer: &mut Buffer, view: &View, look: Look) {
    let title = if view.is_loading { "rate" } else { "rate of the last load" };
    let inside = framed(area, buffer, title, look);
    let lines = vec![
        fact("achieved", &achieved(view), look),
        fact("offered", &known(view.offered_per_s, format::rate), look),
        errors(view, look),
        Line::styled(sparks(view, usize::from(inside.width)), look.accent),
    ];
    Paragraph::new(lines).render(inside, buffer);
}

/// Accepted by the second, the newest at the right.
fn sparks(view: &View, columns: usize) -> String {
    const BARS: [&str; 8] = [
        bar::ONE_EIGHTH,
        bar::ONE_QUARTER,
        bar::THREE_EIGHTHS,
        bar::HALF,
        bar::FIVE_EIGHTHS,
        bar::THREE_QUARTERS,
        bar::SEVEN_EIGHTHS,
        bar::FULL,
    ];
    let shown = view.seconds.iter().skip(view.seconds.len().saturating_sub(columns));
    let most = shown.clone().map(|second| second.accepted).max().unwrap_or(0).max(1);
    let bars: String = shown.map(|second| BARS[(second.accepted * 7 / most) as usize]).collect();
    format!("{bars:>columns$}")
}

fn errors<'a>(view: &View, look: Look) -> Line<'a> {
    let outcomes = view.outcomes();
    let errors = outcomes.total() - outcomes.accepted;
    let style = if errors > 0 { look.fault } else { Style::new() };
    let name = Span::styled(format!("{:<10}", "errors"), look.soft);
    Line::from(vec![name, Span::styled(format::count(errors), style)])
}

fn percentiles(area: Rect, buffer: &mut Buffer, view: &View, look: Look) {
    let inside = framed(area, buffer, "response time so far", look);
    Paragraph::new(percentile_lines(view, look)).render(inside, buffer);
}

fn percentile_lines<'a>(view: &View, look: Look) -> Vec<Line<'a>> {
    // 0 is none: the warm-up is not in them.
    let time = |ns: u64| if ns == 0 { format::UNKNOWN.to_owned() } else { format::time_ns(ns) };
    let numbers = view.numbers.unwrap_or_default();
    let rows = [
        ("p50", numbers.response_time_ns_p50),
        ("p90", numbers.response_time_ns_p90),
        ("p99", numbers.response_time_ns_p99),
        ("p99.9", numbers.response_time_ns_p999),
        ("max", numbers.response_time_ns_max),
    ];
    rows.into_iter().map(|(name, ns)| fact(name, &time(ns), look)).collect()
}

fn target(area: Rect, buffer: &mut Buffer, view: &View, look: Look) {
    let inside = framed(area, buffer, "target and machine", look);
    let polls = known(view.target.poll_interval_s, |interval_s| {
        let deep = if view.target.is_deep_idle { ", deep idle" } else { "" };
        format!("{}{deep}", format::seconds(interval_s))
    });
    let stalls = known(view.stalls, |stalls| match stalls.count {
        0 => "0".to_owned(),
        count => format!("{}, max {}", format::count(count), format::time_ns(stalls.longest_ns)),
    });
    let lines = vec![
        fact("backlog", &known(view.target.pending_events, |pending| format::counted(pending, "event")), look),
        fact("polls", &polls, look),
        fact("SQL", &known(view.sql_per_s, format::rate), look),
        fact("hiccups", &stalls, look),
    ];
    Paragraph::new(lines).render(inside, buffer);
}

/// Response times by the second, the newest at the right, the fastest at the bottom; shades by the logarithm of the count.
fn heat_map(area: Rect, buffer: &mut Buffer, view: &View, look: Look) {
    let inside = framed(area, buffer, "response time by the second: now at the right", look);
    let rows = usize::from(inside.height);
    let columns = usize::from(inside.width.saturating_sub(LABEL_COLUMNS));
    let now = view.is_loading.then_some(&view.second);
    let all: Vec<&Buckets> = view.seconds.iter().chain(now).map(|second| &second.times).collect();
    let shown = &all[all.len().saturating_sub(columns)..];
    let occupied = shown.iter().filter_map(|times| times.occupied());
    let Some(range) = occupied.reduce(|all, one| all.start.min(one.start)..all.end.max(one.end)) else { return };
    if rows == 0 {
        return;
    }
    // From whole octaves to whole octaves, so that the scale does not move with every sample.
    let begin = range.start / PER_OCTAVE * PER_OCTAVE;
    let per_row = (range.end.next_multiple_of(PER_OCTAVE) - begin).div_ceil(rows).max(1);
    let buckets_of = |row: usize| begin + row * per_row..begin + (row + 1) * per_row;
    let most = shown.iter().flat_map(|times| (0..rows).map(|row| times.count(buckets_of(row)))).max().unwrap_or(0);
    for row in 0..rows {
        let y = inside.bottom() - 1 - row as u16;
        if row % 2 == 0 {
            let label = format!("{:>7} ", format::time_ns(buckets::begin_ns(buckets_of(row).start)));
            buffer.set_string(inside.x, y, label, look.soft);
        }
        for (place, times) in shown.iter().rev().enumerate() {
            let count = times.count(buckets_of(row));
            if count > 0 {
                let x = inside.right() - 1 - place as u16;
                buffer.set_string(x, y, shade(count, most), look.accent);
            }
        }
    }
}

fn shade(count: u64, most: u64) -> &'static str {
    let share = (count as f64).ln_1p() / (most as f64).ln_1p();
    SHADES[((share * SHADES.len() as f64) as usize).min(SHADES.len() - 1)]
}

fn keys(view: &View) -> &'static str {
    match view.is_ending {
        false => "q ends early and writes what there is",
        true => "ending this phase and writing what there is; Ctrl-C quits at once, without",
    }
}

fn footer(area: Rect, buffer: &mut Buffer, view: &View, look: Look) {
    let style = if view.is_ending { look.fault } else { look.soft };
    Paragraph::new(keys(view)).style(style).render(area, buffer);
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use reports::model::Outcomes;

    use super::super::view::TargetLook;
    use super::*;
    use crate::observe::hiccup::StallsSeen;
    use crate::recorder::Snapshot;

    /// What a screen of this size shows.
    fn screen(view: &View, (columns, rows): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal");
        terminal.draw(|frame| draw(frame, view, Look::new(true))).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let lines = buffer.content().chunks(usize::from(columns).max(1));
        let text = lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
        text.collect::<Vec<_>>().join("\n") + "\n"
    }

    /// A load of 40 s of which 31 are over: most answers in 0.3 ms, a few in 1.5 ms, and a second in which everything took 20 ms.
    fn loading() -> View {
        let mut view = View::new(Duration::from_secs(96));
        view.phase(Duration::from_secs(9), "journal-first #2", "load", true);
        view.offered_per_s = Some(1_000.0);
        let mut numbers = Snapshot::default();
        for second in 0..=31 {
            for place in 0..1_000 {
                numbers.buckets.add(match (second, place) {
                    (17, 0..600) => 20_000_000 - place * 30_000,
                    (_, 0..6) => 1_500_000,
                    _ => 240_000 + place * 120,
                });
            }
            numbers.outcomes = Outcomes { accepted: (second + 1) * 1_000 - 3, failed: 3, ..Outcomes::default() };
            numbers.response_time_ns_p50 = 301_000;
            numbers.response_time_ns_p90 = 348_000;
            numbers.response_time_ns_p99 = 1_500_000;
            numbers.response_time_ns_p999 = 19_100_000;
            numbers.response_time_ns_max = 20_000_000;
            view.look(Duration::from_millis(10_000 + second * 1_000), Some(&numbers));
        }
        let look = |statements: f64| TargetLook {
            pending_events: Some(14),
            poll_interval_s: Some(0.1),
            is_deep_idle: false,
            sql_statements: Some(statements),
        };
        view.target(Duration::from_secs(38), look(100.0));
        view.target(Duration::from_secs(41), look(136.0));
        view.stalls = Some(StallsSeen { count: 2, longest_ns: 4_130_000 });
        view.say("cache-first #1: the server could not be started");
        view
    }

    fn assert_golden(name: &str, actual: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/live/screens").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, actual).expect("a file");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(expected == actual, "{name} differs; UPDATE_GOLDEN=1 accepts it. Was:\n{expected}\nIs:\n{actual}");
    }

    #[test]
    fn eighty_by_twenty_four_show_all_of_it() {
        let text = screen(&loading(), (80, 24));
        for told in
            ["journal-first #2", "1\u{202f}000/s", "14 events", "100 ms", "12/s", "2, max 4.13 ms", "errors    3"]
        {
            assert!(text.contains(told), "{told} is not in\n{text}");
        }
        assert_golden("load.txt", &text);
    }

    #[test]
    fn while_it_idles_the_polls_are_live_and_the_load_is_the_last_one() {
        let mut view = loading();
        view.phase(Duration::from_secs(60), "journal-first #2", "idle", false);
        view.look(Duration::from_secs(75), None);
        view.target(
            Duration::from_secs(75),
            TargetLook { poll_interval_s: Some(30.0), is_deep_idle: true, ..TargetLook::default() },
        );
        view.is_ending = true;
        let text = screen(&view, (80, 24));
        assert!(text.contains("30 s, deep idle") && text.contains("rate of the last load"), "{text}");
        assert_golden("idle.txt", &text);
    }

    #[test]
    fn before_the_first_number_nothing_is_made_up() {
        let text = screen(&View::new(Duration::from_secs(60)), (80, 24));
        assert!(text.contains("p99       –") && text.contains("achieved  –") && text.contains("backlog   –"), "{text}");
    }

    #[test]
    fn every_size_of_a_terminal_can_be_drawn_on() {
        let view = loading();
        for size in [(0, 0), (1, 1), (10, 3), (72, 18), (71, 18), (80, 19), (300, 100)] {
            let _ = screen(&view, size);
        }
        assert!(screen(&view, (40, 12)).contains("p99       1.5 ms"), "{}", screen(&view, (40, 12)));
        assert!(screen(&view, (40, 12)).contains("q ends early"));
    }

    #[test]
    fn without_colours_no_cell_has_one() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &loading(), Look::new(false))).expect("drawn");
        let cells = terminal.backend().buffer().content().to_vec();
        assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    }
}
