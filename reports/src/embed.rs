//! What stands in a page and is not markup: data, which must not end the element they stand in, and the script, with the policy that
//! allows it and nothing else.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped, html};
use serde::Serialize;
use sha2::{Digest, Sha256};

const SCRIPT: &str = concat!(
    include_str!("html/script/numbers.js"),
    include_str!("html/script/elements.js"),
    include_str!("html/script/drawing.js"),
    include_str!("html/script/chart.js"),
    include_str!("html/script/page.js"),
);

/// The script of the page, for the end of its body.
pub fn script() -> Markup {
    html! { script id="behaviour" { (PreEscaped(SCRIPT)) } }
}

/// For the page's `Content-Security-Policy`: nothing is loaded from anywhere, and no script runs but [`script`], which the browser knows by
/// its hash.
pub fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = STANDARD.encode(Sha256::digest(SCRIPT));
        format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'")
    });
    &POLICY
}

/// JSON that cannot end the element it stands in: `<` occurs in it only within strings, where `\u003c` means the same.
///
/// # Panics
/// When a map of `data` has keys that are not text.
pub fn json(data: &impl Serialize) -> PreEscaped<String> {
    PreEscaped(serde_json::to_string(data).expect("it has only text keys").replace('<', "\\u003c"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_script_by_a_hash_of_its_bytes_and_nothing_could_end_it() {
        // Of another program: `openssl dgst -sha256 -binary | base64` of an empty file.
        assert_eq!(STANDARD.encode(Sha256::digest("")), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert!(policy().contains(&STANDARD.encode(Sha256::digest(SCRIPT))));
        assert!(!SCRIPT.contains("</script") && !SCRIPT.contains("<!--"));
    }
}
