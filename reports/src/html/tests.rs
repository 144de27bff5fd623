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
fn every_page_asks_nothing_of_the_network_and_runs_nothing() {
    for (name, _, page) in pages() {
        let markup = page.split("<script type=\"application/json\"").next().unwrap();
        for forbidden in ["<script", "<link", "<img", "@import", "url(", "src=\"", " style=\"", "javascript:", "onload"]
        {
            assert!(!markup.contains(forbidden), "{name} has {forbidden}");
        }
        assert!(page.len() < 1_500_000, "{name} has {} bytes", page.len());
    }
}

#[test]
fn the_data_can_be_taken_from_the_page() {
    for (name, run, page) in pages() {
        let data = page.split("id=\"run-data\">").nth(1).unwrap().split("</script>").next().unwrap();
        assert_eq!(schema::read(data).unwrap(), *run, "{name}");
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
    assert_eq!(page.matches("<script").count(), 1, "only the data element");
    assert!(!page.contains("alert(1)</script") && !page.contains("<!--"));
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
        let markup = page.split("<script type=\"application/json\"").next().unwrap();
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
