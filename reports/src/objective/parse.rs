//! Text → [`Objective`], with errors that show the place, say what is allowed, and guess what was meant.

use std::fmt;

use super::metric::{Dimension, Metric, names};
use super::{Bound, Comparison, Objective};

/// Why a text is no objective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The text.
    pub text: String,
    /// Where it goes wrong: first character, counted from 0.
    pub column: usize,
    /// How many characters are wrong; at least 1.
    pub length: usize,
    /// What is wrong, on one line.
    pub problem: String,
    /// What is allowed, or was probably meant.
    pub help: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.problem)?;
        writeln!(f, "  {}", self.text)?;
        writeln!(f, "  {}{}", " ".repeat(self.column), "^".repeat(self.length))?;
        write!(f, "{}", self.help)
    }
}

impl std::error::Error for ParseError {}

/// Reads one objective.
///
/// # Errors
/// When the text is none: where, why, and what is allowed.
pub fn parse(text: &str) -> Result<Objective, ParseError> {
    let at = Place { text };
    let (operator_at, comparison, operator_length) = find_comparison(text).ok_or_else(|| {
        at.error(
            text.trim_start_matches(' '),
            "there is no comparison".to_owned(),
            "write one of <, <=, >, >=, ==".to_owned(),
        )
    })?;
    let comparison = comparison.ok_or_else(|| {
        let found = &text[operator_at..operator_at + operator_length];
        at.error(found, format!("{found:?} is no comparison"), "write one of <, <=, >, >=, ==".to_owned())
    })?;
    let left = &text[..operator_at];
    let (variant, metric_text) = match left.rfind(':') {
        Some(colon) => (Some(left[..colon].trim()), left[colon + 1..].trim()),
        None => (None, left.trim()),
    };
    if variant == Some("") {
        return Err(at.error(
            left,
            "there is no variant before the colon".to_owned(),
            "write variant: metric < bound".to_owned(),
        ));
    }
    let metric = Metric::find(metric_text)
        .ok_or_else(|| unknown_metric(&at, metric_text, &text[operator_at..operator_at + operator_length]))?;
    let bound = parse_bound(&at, text[operator_at + operator_length..].trim(), metric.dimension())?;
    Ok(Objective { variant: variant.map(str::to_owned), metric, comparison, bound })
}

/// [`parse`], and checks that the variants it names are among `variants`.
///
/// # Errors
/// As [`parse`], and when a variant is not one of them.
pub fn parse_for(text: &str, variants: &[&str]) -> Result<Objective, ParseError> {
    let objective = parse(text)?;
    let reference = match &objective.bound {
        Bound::Ratio { variant, .. } => Some(variant),
        Bound::Value { .. } => None,
    };
    for (named, last) in [(objective.variant.as_ref(), false), (reference, true)] {
        let Some(named) = named.filter(|n| !variants.contains(&n.as_str())) else { continue };
        let byte = if last { text.rfind(named.as_str()) } else { text.find(named.as_str()) }.unwrap_or(0);
        let guess = nearest(named, variants).map(|v| format!("; did you mean {v:?}?")).unwrap_or_default();
        let help = format!(
            "variants are {}{guess}",
            if variants.is_empty() { "none".to_owned() } else { variants.join(", ") }
        );
        return Err(Place { text }.error(
            &text[byte..byte + named.len()],
            format!("no variant is called {named:?}"),
            help,
        ));
    }
    Ok(objective)
}

/// The text, to turn parts of it into columns.
struct Place<'a> {
    text: &'a str,
}

impl Place<'_> {
    /// `part` has to be a slice of the text.
    fn error(&self, part: &str, problem: String, help: String) -> ParseError {
        let byte = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize).min(self.text.len());
        ParseError {
            text: self.text.to_owned(),
            column: self.text[..byte].chars().count(),
            length: part.chars().count().max(1),
            problem,
            help,
        }
    }
}

/// Byte, comparison (`None`: something like one) and length in bytes of the first comparison in `text`.
fn find_comparison(text: &str) -> Option<(usize, Option<Comparison>, usize)> {
    let at = text.find(['<', '>', '=', '!', '≤', '≥'])?;
    let rest = &text[at..];
    let length = rest.find(|c| !"<>=!≤≥".contains(c)).unwrap_or(rest.len());
    let comparison = match &rest[..length] {
        "<" => Some(Comparison::Below),
        "<=" | "≤" => Some(Comparison::AtMost),
        ">" => Some(Comparison::Above),
        ">=" | "≥" => Some(Comparison::AtLeast),
        "==" => Some(Comparison::Equal),
        _ => None,
    };
    Some((at, comparison, length))
}

fn unknown_metric(at: &Place<'_>, name: &str, operator: &str) -> ParseError {
    if name.is_empty() {
        let help = "write a metric before it, as in response_time.p99 < 1ms".to_owned();
        return at.error(operator, "there is no metric".to_owned(), help);
    }
    let all = names();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let group = name.split('.').next().unwrap_or(name);
    let members: Vec<&str> =
        all.iter().filter_map(|n| n.split_once('.').filter(|(g, _)| *g == group)).map(|(_, m)| m).collect();
    let mut help = nearest(name, &all).map(|guess| format!("did you mean {guess}? ")).unwrap_or_default();
    if members.is_empty() {
        let mut groups: Vec<&str> = all.iter().map(|n| n.split('.').next().unwrap_or(n)).collect();
        groups.dedup();
        help += &format!("metrics begin with {}", groups.join(", "));
    } else {
        help += &format!("{group} has {}", members.join(", "));
    }
    at.error(name, format!("no metric is called {name:?}"), help)
}

fn parse_bound(at: &Place<'_>, text: &str, dimension: Dimension) -> Result<Bound, ParseError> {
    let allowed = dimension.allowed_units();
    if text.is_empty() {
        return Err(at.error(
            &at.text[at.text.len()..],
            "there is no bound".to_owned(),
            format!("write a number; {allowed}"),
        ));
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let number_text = &text[..end];
    let number = number_text.replace('_', "").parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| {
        let wrong = if end == 0 { text } else { number_text };
        at.error(
            wrong,
            format!("{wrong:?} is not a number that can be a bound"),
            format!("write digits, as in 1.5; {allowed}"),
        )
    })?;
    let rest = text[end..].trim();
    let other =
        rest.strip_prefix('×').or_else(|| rest.strip_prefix('x').filter(|r| r.is_empty() || r.starts_with(' ')));
    if let Some(other) = other {
        let variant = other.trim();
        if variant.is_empty() {
            return Err(at.error(
                rest,
                "there is no variant after the x".to_owned(),
                "write as in 1.5 x null".to_owned(),
            ));
        }
        return Ok(Bound::Ratio { factor: number, variant: variant.to_owned() });
    }
    let (unit, scale) = dimension.scale(rest).ok_or_else(|| {
        let (part, problem) = match rest {
            "" => (number_text, format!("{number_text:?} has no unit")),
            unit => (unit, format!("{unit:?} is not a unit of this metric")),
        };
        at.error(part, problem, allowed.to_owned())
    })?;
    Ok(Bound::Value { number, unit, in_base_unit: number * scale })
}

/// The candidate that is a few typing errors away; `None` when none is near.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).clamp(1, 4);
    candidates
        .iter()
        .map(|c| (distance(name, c), *c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
