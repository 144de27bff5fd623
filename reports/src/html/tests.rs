//! Tests of the page.

use std::sync::LazyLock;

use super::*;
use crate::{fixtures, schema};

/// Name, run, HTML.
type Page = (String, Run, String);

/// Every fixture with its page, rendered once for all tests.
fn pages() -> &'static [Page] {
    static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
        let foreign = schema::read(&std::fs::read_to_string(fixtures::path("foreign.json")).unwrap()).unwrap();
        let mut judged = foreign.clone();
        crate::verdict::assess(&mut judged);
        let runs = fixtures::all().into_iter().map(|(n, r)| (n.to_owned(), r));
        let runs = runs.chain([("foreign".to_owned(), judged), ("foreign-as-is".to_owned(), foreign)]);
        runs.map(|(name, run)| (name, run.clone(), render(&run))).collect()
    });
    &PAGES
}

#[test]
fn the_page_of_the_small_run_is_as_committed() {
    fixtures::assert_golden(&fixtures::path("small.html"), &render(&fixtures::small()));
}

#[test]
fn the_committed_page_of_a_gate_is_the_one_that_its_data_make() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../regressions/cpu-20-percent");
    let found = crate::gate::file::read(&std::fs::read_to_string(folder.join("gate.json")).unwrap()).unwrap();
    fixtures::assert_golden(&folder.join("report.html"), &gate::render(&found));
}

/// The page without what is in its script elements.
fn markup(page: &str) -> String {
    page.split("<script").map(|part| part.split_once("</script>").map_or(part, |(_, rest)| rest)).collect()
}

#[test]
fn every_page_asks_nothing_of_the_network_and_runs_only_the_script_that_its_policy_names() {
    for (name, _, page) in pages() {
        for forbidden in
            ["<link", "<img", "<iframe", "@import", "url(", "src=\"", " style=\"", "javascript:", " onload"]
        {
            assert!(!markup(page).contains(forbidden), "{name} has {forbidden}");
        }
        let scripts = page.split("<script ").skip(1).filter(|rest| !rest.starts_with("type=\"application/json\""));
        assert_eq!(scripts.count(), 1, "{name}");
        assert!(page.contains(embed::policy()), "{name}");
        assert!(page.len() < 1_500_000, "{name} has {} bytes", page.len());
    }
}

#[test]
fn the_data_can_be_taken_from_the_page() {
    for (name, run, page) in pages() {
        let element = |id: &str| {
            let (_, rest) = page.split_once(&format!(" id=\"{id}\" ")).unwrap();
            rest.split_once('>').unwrap().1.split("</script>").next().unwrap().to_owned()
        };
        assert_eq!(schema::read(&element("run-data")).unwrap(), *run, "{name}");
        assert_eq!(serde_json::from_str::<String>(&element("csv-data")).unwrap(), export::csv(run), "{name}");
    }
}

#[test]
fn what_comes_from_outside_is_escaped() {
    let mut run = fixtures::small();
    let evil = "</script><script>alert(1)</script><!--";
    run.plan.name = evil.to_owned();
    run.command = vec![evil.to_owned()];
    run.plan.variants[0].name = evil.to_owned();
    run.results[0].target = evil.to_owned();
    run.results[0].failure = Some(evil.to_owned());
    run.results[1].idle.as_mut().unwrap().statements[0].statement = evil.to_owned();
    crate::verdict::assess(&mut run);
    let page = render(&run);
    assert!(!page.contains("alert(1)</script") && !page.contains("<!--"));
    assert!(!page.contains("<script>"), "an element that is not ours");
}

#[test]
fn what_is_peculiar_about_the_plan_is_told_before_any_number() {
    let mut run = fixtures::small();
    (run.plan.tls_insecure, run.plan.faults) = (true, vec!["lose 1%".to_owned()]);
    let page = render(&run);
    let (head, _) = page.split_once("class=\"verdict").unwrap();
    for told in ["certificates NOT verified", "faults of the server, as asked for: lose 1%"] {
        assert!(head.contains(told), "{told}");
    }
}

#[test]
fn every_id_is_unique_and_every_link_leads_somewhere() {
    for (name, _, page) in pages() {
        let markup = markup(page);
        let mut ids: Vec<&str> = markup.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "{name} has an id twice");
        for link in markup.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(ids.contains(&link), "{name}: #{link}");
        }
    }
}

#[test]
fn the_verdict_comes_first_and_in_words() {
    for (name, expected) in [
        ("three-modes", "✓ Pass"),
        ("lying-server", "✗ Missed"),
        ("dead-target", "⊘ Invalid"),
        ("small", "? Inconclusive"),
        ("crash", "✗ Missed"),
        ("conform", "✗ Missed"),
        ("foreign", "? Inconclusive"),
    ] {
        let (_, _, page) = pages().iter().find(|(n, ..)| n == name).unwrap();
        assert!(page.contains(expected), "{name} does not say {expected}");
    }
}

#[test]
fn a_verdict_with_many_reasons_shows_the_first_and_folds_the_others_without_losing_one() {
    for (count, open, fold) in
        [(1, 1, None), (4, 4, None), (5, 3, Some("and 2 more reasons")), (12, 3, Some("and 9 more reasons"))]
    {
        let reasons: Vec<String> = (1..=count).map(|n| format!("reason {n}.")).collect();
        let page = head::verdict_box("missed", "✗", "Missed", &reasons).into_string();
        let (before, folded) = page.split_once("<details>").unwrap_or((&page, ""));
        assert_eq!(before.matches("<li>reason ").count(), open, "{page}");
        assert_eq!(folded.matches("<li>reason ").count(), count - open, "{page}");
        assert!(reasons.iter().all(|reason| page.contains(reason)), "{page}");
        assert_eq!(fold.is_some(), folded.contains("<summary>"), "{page}");
        assert!(fold.is_none_or(|text| folded.contains(text)), "{page}");
    }
}
