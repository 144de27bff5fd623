//! The keys of a profile: what each may be, what it means when it is left out, and which of them go together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::read::{Document, Mistake, Placed, Section};
use super::{Action, DatabaseKind, KeySource, Persisted, Pids, Profile, Text};
use crate::dialect::{Dialect, Ingest, KeyHeader, KeyRoute, Ready, Routes, Statuses};
use crate::nearest::nearest;
use crate::payload::{self, BodyTemplate};

const NAME_CHARACTERS_MAX: usize = 40;
const SECOND: Duration = Duration::from_secs(1);
const PREPARE_TIMEOUT: (Duration, Duration) = (SECOND, Duration::from_secs(2 * 3_600));
const SETUP_TIMEOUT: (Duration, Duration) = (SECOND, Duration::from_secs(600));
const READY_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// Rules of the contract.
const RULES: [&str; 21] = [
    "A1", "A2", "A3", "A4", "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "R1", "R2", "D1", "D2", "O1", "O2", "O3",
    "O4", "O5",
];

/// Placeholders of commands and everything else that is filled in at a start.
const OF_START: [&str; 4] = ["port", "data", "profile", "loadgen"];
const OF_PREPARE: [&str; 2] = ["profile", "loadgen"];
const OF_DATABASE: [&str; 7] = [
    "database_url",
    "database_user",
    "database_password",
    "database_host",
    "database_port",
    "database_name",
    "database_file",
];
const OF_KEY_COMMAND: [&str; 2] = ["organization", "url"];
const OF_URL: [&str; 1] = ["port"];
const ENVIRONMENT: &str = "env.";

/// What loadgen writes itself.
const OWN_HEADERS: [&str; 6] = ["host", "content-type", "content-length", "connection", "transfer-encoding", "expect"];
const NONE: &str = "none";

const METHODS: [(&str, &str); 2] = [("POST", "POST"), ("PUT", "PUT")];
const SIGNALS: [(&str, Signal); 7] = [
    ("TERM", Signal::TERM),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("HUP", Signal::HUP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("KILL", Signal::KILL),
];

/// Reads a profile.
pub fn profile(text: &str, folder: &Path) -> Result<Profile, Vec<Mistake>> {
    let (mut document, top) = Document::parse(text);
    let profile = Builder { document: &mut document }.profile(top, folder);
    let mistakes = document.into_mistakes();
    if mistakes.is_empty() { Ok(profile) } else { Err(mistakes) }
}

struct Builder<'d, 't> {
    document: &'d mut Document<'t>,
}

impl<'t> Builder<'_, 't> {
    fn profile(&mut self, mut top: Section<'t>, folder: &Path) -> Profile {
        let (name, label) = self.names(&mut top);
        let description = top.text(self.document, "description").map(|text| text.value);
        let claims = self.claims(&mut top);
        let prepare = self.action(&mut top, "prepare", PREPARE_TIMEOUT, Duration::from_secs(600), &OF_PREPARE);
        let database = self.database(&mut top);
        let values = match database {
            DatabaseKind::None => OF_START.to_vec(),
            _ => OF_START.into_iter().chain(OF_DATABASE).collect(),
        };
        let setup = self.action(&mut top, "setup", SETUP_TIMEOUT, Duration::from_secs(60), &values);
        let start = self.start(&mut top, &values);
        let (ready, ready_timeout) = self.ready(&mut top);
        let (stop_signal, stop_timeout) = self.stop(&mut top);
        let (url, headers) = self.http(&mut top, start.is_some());
        let (keys, key, key_header) = self.key(&mut top, &values);
        let ingest = self.ingest(&mut top);
        let routes = self.routes(&mut top);
        let persisted = self.persisted(&mut top, &database, &routes);
        let pids = self.pids(&mut top, start.is_some(), &values);
        top.finish(self.document);
        let dialect = Dialect { headers, key_header, key, ingest, routes, ready };
        Profile {
            name,
            label,
            description,
            claims,
            folder: folder.to_owned(),
            dialect: Arc::new(dialect),
            prepare,
            setup,
            start,
            ready_timeout,
            stop_signal,
            stop_timeout,
            database,
            url,
            keys,
            persisted,
            pids,
            prepared: Arc::default(),
        }
    }

    fn names(&mut self, top: &mut Section<'t>) -> (String, Option<String>) {
        let is_there = top.line_of("name").is_some();
        let mut name = |builder: &mut Self, key| {
            let Placed { value, line } = top.text(builder.document, key)?;
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
            if value.len() > NAME_CHARACTERS_MAX || !value.chars().all(fits) {
                let problem = format!(
                    "= {value:?}: allowed: a-z, 0-9, '.', '-' and '_', {NAME_CHARACTERS_MAX} characters at most"
                );
                builder.document.add(line, key, problem, "results are found by it: give a short one");
            }
            Some(value)
        };
        let (given, label) = (name(self, "name"), name(self, "label"));
        if !is_there {
            self.document.add(1, "name", "is missing", "write name = \"…\", which results call the target by");
        }
        (given.unwrap_or_default(), label.filter(|label| label != "default"))
    }

    fn claims(&mut self, top: &mut Section<'t>) -> Option<Vec<String>> {
        let Placed { value, line } = top.texts(self.document, "claims")?;
        for claim in value.iter().filter(|claim| !RULES.contains(&claim.as_str())) {
            let problem = format!("{claim:?} is no rule of the contract; there are: {}", RULES.join(", "));
            self.document.add(line, "claims", problem, "leave it out, or claims itself if it claims all");
        }
        Some(RULES.into_iter().filter(|rule| value.iter().any(|claim| claim == rule)).map(str::to_owned).collect())
    }

    /// A command in a table of its own.
    fn action(
        &mut self,
        top: &mut Section<'t>,
        name: &'static str,
        bounds: (Duration, Duration),
        timeout: Duration,
        values: &[&'static str],
    ) -> Option<Action> {
        let mut section = top.section(self.document, name)?;
        let timeout = section.span(self.document, "timeout", bounds).map_or(timeout, |span| span.value);
        let action = self.command(&mut section, values, timeout);
        section.finish(self.document);
        action
    }

    fn start(&mut self, top: &mut Section<'t>, values: &[&'static str]) -> Option<Action> {
        let mut section = top.section(self.document, "start")?;
        let action = self.command(&mut section, values, Duration::ZERO);
        section.finish(self.document);
        // A mistake in it does not make it one that runs already.
        Some(action.unwrap_or(Action { command: Vec::new(), environment: Vec::new(), timeout: Duration::ZERO }))
    }

    /// `command` and `environment`.
    fn command(&mut self, section: &mut Section<'t>, values: &[&'static str], timeout: Duration) -> Option<Action> {
        let environment = self.environment(section, values);
        let (line, key) = (section.line(), section.key("command"));
        let is_there = section.line_of("command").is_some();
        let Some(Placed { value, line }) = section.texts(self.document, "command") else {
            if !is_there {
                let remedy = "write command = [\"program\", \"argument\"]";
                self.document.add(line, &key, "is missing", remedy);
            }
            return None;
        };
        let command = value.into_iter().map(|part| self.filled(&key, Placed { value: part, line }, values)).collect();
        Some(Action { command, environment, timeout })
    }

    fn environment(&mut self, section: &mut Section<'t>, values: &[&'static str]) -> Vec<(String, Text)> {
        let key = section.key("environment");
        let Some(Placed { value, line }) = section.pairs(self.document, "environment") else { return Vec::new() };
        value.into_iter().map(|(name, value)| (name, self.filled(&key, Placed { value, line }, values))).collect()
    }

    /// A text whose placeholders must be among `values`.
    fn filled(&mut self, key: &str, text: Placed<String>, values: &[&'static str]) -> Text {
        let filled = Text::new(text.value);
        for name in filled.placeholders() {
            if !values.contains(&name) && !name.starts_with(ENVIRONMENT) {
                self.unknown_placeholder(text.line, key, name, values);
            }
        }
        filled
    }

    fn unknown_placeholder(&mut self, line: usize, key: &str, name: &str, values: &[&'static str]) {
        let problem = format!("has {{{name}}}, which stands for nothing here");
        let remedy = match nearest(name, values.iter().copied()) {
            _ if name.starts_with("database") && !values.contains(&OF_DATABASE[0]) => {
                "say with [database] kind which one it has".to_owned()
            }
            Some(known) => format!("did you mean {{{known}}}?"),
            _ if values.is_empty() => "only {env.NAME} may be in braces here".to_owned(),
            _ => {
                let known: Vec<String> = values.iter().map(|known| format!("{{{known}}}")).collect();
                format!("use one of {}", known.join(" "))
            }
        };
        self.document.add(line, key, problem, remedy);
    }

    fn database(&mut self, top: &mut Section<'t>) -> DatabaseKind {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Postgres,
            Sqlite,
            Any,
            None,
        }
        let Some(mut section) = top.section(self.document, "database") else { return DatabaseKind::None };
        let kinds = [("postgres", Kind::Postgres), ("sqlite", Kind::Sqlite), ("any", Kind::Any), (NONE, Kind::None)];
        let kind = section.choice(self.document, "kind", &kinds).map_or(Kind::None, |kind| kind.value);
        let (file_key, url_key) = (section.key("file"), section.key("url"));
        let file = section.text(self.document, "file");
        let url = section.text(self.document, "url");
        section.finish(self.document);
        if let Some(file) = file.as_ref().filter(|_| !matches!(kind, Kind::Sqlite | Kind::Any)) {
            let problem = "is for kind = \"sqlite\" or \"any\"";
            self.document.add(file.line, &file_key, problem, "leave it out, or change the kind");
        }
        if let Some(url) = url.as_ref().filter(|_| kind != Kind::Postgres) {
            let problem = "is for kind = \"postgres\"";
            self.document.add(url.line, &url_key, problem, "leave it out, or change the kind");
        }
        let default = Placed { value: "{data}/events.db".to_owned(), line: 0 };
        let file = self.filled(&file_key, file.unwrap_or(default), &OF_START);
        match (kind, url) {
            (Kind::Postgres, Some(url)) => DatabaseKind::Existing(self.filled(&url_key, url, &OF_START)),
            (Kind::Postgres, None) => DatabaseKind::Postgres,
            (Kind::Sqlite, _) => DatabaseKind::Sqlite(file),
            (Kind::Any, _) => DatabaseKind::Any(file),
            (Kind::None, _) => DatabaseKind::None,
        }
    }

    fn ready(&mut self, top: &mut Section<'t>) -> (Ready, Duration) {
        let (mut ready, mut timeout) = (Dialect::contract().ready, Duration::from_secs(30));
        if let Some(mut section) = top.section(self.document, "ready") {
            if let Some(path) = self.route(&mut section, "path", None) {
                ready.path = path;
            }
            if let Some(statuses) = section.statuses(self.document, "status", 100..=599) {
                ready.statuses = Statuses::OneOf(statuses.value);
            }
            timeout = section.span(self.document, "timeout", READY_TIMEOUT).map_or(timeout, |span| span.value);
            section.finish(self.document);
        }
        (ready, timeout)
    }

    fn stop(&mut self, top: &mut Section<'t>) -> (Signal, Duration) {
        let (mut signal, mut timeout) = (Signal::TERM, Duration::from_secs(20));
        if let Some(mut section) = top.section(self.document, "stop") {
            signal = section.choice(self.document, "signal", &SIGNALS).map_or(signal, |signal| signal.value);
            timeout = section.span(self.document, "timeout", READY_TIMEOUT).map_or(timeout, |span| span.value);
            section.finish(self.document);
        }
        (signal, timeout)
    }

    fn http(&mut self, top: &mut Section<'t>, is_started: bool) -> (Text, Vec<(String, String)>) {
        let mut headers = Vec::new();
        let mut url = None;
        let line = top.line_of("http").unwrap_or(1);
        if let Some(mut section) = top.section(self.document, "http") {
            let key = section.key("url");
            if let Some(given) = section.text(self.document, "url") {
                let line = given.line;
                let values = if is_started { &OF_URL[..] } else { &[] };
                let text = self.filled(&key, given, values);
                if !["http://", "https://", "{env."].iter().any(|start| text.as_str().starts_with(start)) {
                    let problem = format!("= {:?}: is no http(s) URL", text.as_str());
                    self.document.add(line, &key, problem, "write http://HOST:PORT or https://HOST:PORT");
                }
                url = Some(text);
            }
            headers = self.headers(&mut section);
            section.finish(self.document);
        }
        if url.is_none() && !is_started {
            let problem = "is missing, and there is no [start]";
            self.document.add(line, "[http] url", problem, "say where the target listens, or how to start it");
        }
        (url.unwrap_or_else(|| Text::new("http://127.0.0.1:{port}")), headers)
    }

    fn headers(&mut self, section: &mut Section<'t>) -> Vec<(String, String)> {
        let key = section.key("headers");
        let Some(Placed { value, line }) = section.pairs(self.document, "headers") else { return Vec::new() };
        value.into_iter().filter_map(|(name, value)| self.header(&key, line, &name, &value)).collect()
    }

    /// A header that may be sent, its name in lower case.
    fn header(&mut self, key: &str, line: usize, name: &str, value: &str) -> Option<(String, String)> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name = name.to_ascii_lowercase();
        if name.is_empty() || !name.chars().all(is_token) {
            let remedy = "write it like { X-Name = \"value\" }";
            self.document.add(line, key, format!("has {name:?}, which is no name of a header"), remedy);
            return None;
        }
        if OWN_HEADERS.contains(&name.as_str()) {
            let problem = format!("has {name}, which loadgen writes itself");
            self.document.add(line, key, problem, "leave it out; every body is sent as application/json");
            return None;
        }
        if let Some(placeholder) = Text::new(value).placeholders().first() {
            let problem = format!("has {{{placeholder}}} in {name}, and all requests have the same headers");
            self.document.add(line, key, problem, "a key goes into [key] header, a dedup_id into [ingest] body");
            return None;
        }
        if value.is_empty() || !value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            let problem = format!("has {name}: {value:?}, which is no value of a header");
            self.document.add(line, key, problem, "use visible ASCII and spaces");
            return None;
        }
        Some((name, value.to_owned()))
    }

    fn key(&mut self, top: &mut Section<'t>, values: &[&'static str]) -> (KeySource, KeyRoute, Option<KeyHeader>) {
        let Dialect { key: mut route, key_header: mut header, .. } = Dialect::contract();
        let Some(mut section) = top.section(self.document, "key") else { return (KeySource::Route, route, header) };
        let sources = [("route", "route"), ("static", "static"), ("command", "command"), (NONE, NONE)];
        let source = section.choice(self.document, "source", &sources).map_or("route", |source| source.value);
        self.keys_of_other_sources(&section, source);
        header = self.key_header(&mut section).or(header);
        self.key_route(&mut section, &mut route);
        let static_key = section.key("values");
        let given = section.texts(self.document, "values");
        let timeout = section.span(self.document, "timeout", SETUP_TIMEOUT);
        let timeout = timeout.map_or(Duration::from_secs(30), |span| span.value);
        let source = match source {
            "static" => {
                if given.is_none() {
                    let remedy = "write values = [\"KEY\"], or [\"{env.NAME}\"] to keep it out of the file";
                    self.document.add(section.line(), &static_key, "is missing", remedy);
                }
                let keys = given.map_or_else(Vec::new, |Placed { value, line }| {
                    value.into_iter().map(|value| self.filled(&static_key, Placed { value, line }, &[])).collect()
                });
                KeySource::Static(keys)
            }
            "command" => {
                let values: Vec<_> = values.iter().copied().chain(OF_KEY_COMMAND).collect();
                self.command(&mut section, &values, timeout).map_or(KeySource::None, KeySource::Command)
            }
            NONE => KeySource::None,
            _ => KeySource::Route,
        };
        section.finish(self.document);
        let header = if source == KeySource::None { None } else { header };
        (source, route, header)
    }

    /// A key that says how keys are made in another way.
    fn keys_of_other_sources(&mut self, section: &Section<'t>, source: &str) {
        let owners = [
            ("route", &["path", "method", "body", "headers", "status", "pointer"][..]),
            ("static", &["values"][..]),
            ("command", &["command", "environment", "timeout"][..]),
        ];
        for (owner, keys) in owners.into_iter().filter(|(owner, _)| *owner != source) {
            for key in keys {
                if let Some(line) = section.line_of(key) {
                    let problem = format!("goes with source = \"{owner}\", and this is \"{source}\"");
                    self.document.add(line, &section.key(key), problem, "leave it out, or change the source");
                }
            }
        }
    }

    fn key_header(&mut self, section: &mut Section<'t>) -> Option<KeyHeader> {
        let key = section.key("header");
        let Placed { value, line } = section.text(self.document, "header")?;
        let split = value.split_once(':').and_then(|(name, value)| Some((name, value.trim().split_once("{key}")?)));
        let Some((name, (before, after))) = split else {
            let problem = format!("= {value:?}: is no header line with {{key}} in it");
            self.document.add(line, &key, problem, "write it like \"X-API-Key: {key}\"");
            return None;
        };
        let (name, _) = self.header(&key, line, name.trim(), &format!("{before}-{after}"))?;
        Some(KeyHeader { name, before: before.to_owned(), after: after.to_owned() })
    }

    fn key_route(&mut self, section: &mut Section<'t>, route: &mut KeyRoute) {
        if let Some(path) = self.path(section, "path") {
            route.path = path;
        }
        if let Some(method) = section.choice(self.document, "method", &METHODS) {
            route.method = method.value;
        }
        if let Some(body) = self.json_text(section, "body", &["organization"]) {
            route.body = body;
        }
        route.headers = self.headers(section);
        if let Some(statuses) = section.statuses(self.document, "status", 200..=299) {
            route.statuses = Statuses::OneOf(statuses.value);
        }
        if let Some(Some(pointer)) = self.pointer(section, "pointer", false) {
            route.pointer = pointer;
        }
    }

    /// JSON in a text, whose placeholders are within strings.
    fn json_text(&mut self, section: &mut Section<'t>, name: &'static str, values: &[&'static str]) -> Option<String> {
        let key = section.key(name);
        let Placed { value, line } = section.text(self.document, name)?;
        self.filled(&key, Placed { value: value.clone(), line }, values);
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&value) {
            self.document.add(line, &key, format!("is not JSON: {error}"), "write JSON in single quotes: '{\"a\": 1}'");
        }
        Some(value)
    }

    /// A path with its query.
    fn path(&mut self, section: &mut Section<'t>, name: &'static str) -> Option<String> {
        let key = section.key(name);
        let path = section.text(self.document, name)?;
        self.is_path(&key, &path).then_some(path.value)
    }

    fn is_path(&mut self, key: &str, path: &Placed<String>) -> bool {
        let Placed { value, line } = path;
        let is_path = value.starts_with('/') && value.chars().all(|c| c.is_ascii_graphic() && c != '#');
        if !is_path {
            let problem = format!("= {value:?}: is no path");
            self.document.add(*line, key, problem, "begin it with a slash, and encode what is not ASCII");
        }
        is_path
    }

    /// A path or "none"; with `{id}` exactly where `placeholder` says so. The outer `None`: nothing is said.
    fn route(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        placeholder: Option<&'static str>,
    ) -> Option<Option<String>> {
        let key = section.key(name);
        let path = section.text(self.document, name)?;
        if path.value == NONE {
            return Some(None);
        }
        if !self.is_path(&key, &path) {
            return None;
        }
        let Placed { value: path, line } = path;
        let found = Text::new(path.as_str());
        match (found.placeholders().as_slice(), placeholder) {
            ([], None) => {}
            ([only], Some(wanted)) if *only == wanted => {}
            (_, Some(wanted)) => {
                let problem = format!("= {path:?}: has to have {{{wanted}}} once");
                self.document.add(line, &key, problem, format!("write it where the {wanted} goes"));
            }
            (_, None) => self.document.add(line, &key, format!("= {path:?}: has a placeholder"), "there is none here"),
        }
        Some(Some(path))
    }

    /// A JSON pointer, or "none" where that is allowed. The outer `None`: nothing is said.
    fn pointer(
        &mut self,
        section: &mut Section<'t>,
        name: &'static str,
        may_be_none: bool,
    ) -> Option<Option<crate::pointer::Pointer>> {
        let key = section.key(name);
        let Placed { value, line } = section.text(self.document, name)?;
        if may_be_none && value == NONE {
            return Some(None);
        }
        match value.parse() {
            Ok(pointer) => Some(Some(pointer)),
            Err(problem) => {
                let or_none = if may_be_none { ", or \"none\"" } else { "" };
                let remedy = format!("write it like \"/data/id\"{or_none}");
                self.document.add(line, &key, format!("= {value:?}: {problem}"), remedy);
                None
            }
        }
    }

    fn ingest(&mut self, top: &mut Section<'t>) -> Ingest {
        let mut ingest = Dialect::contract().ingest;
        let Some(mut section) = top.section(self.document, "ingest") else { return ingest };
        if let Some(path) = self.path(&mut section, "path") {
            ingest.path = path;
        }
        if let Some(method) = section.choice(self.document, "method", &METHODS) {
            ingest.method = method.value;
        }
        ingest.headers = self.headers(&mut section);
        let key = section.key("body");
        if let Some(Placed { value, line }) = section.text(self.document, "body") {
            for name in Text::new(value.as_str()).placeholders() {
                if !payload::PLACEHOLDERS.contains(&name) {
                    self.unknown_placeholder(line, &key, name, &payload::PLACEHOLDERS);
                }
            }
            match BodyTemplate::parse(&value) {
                Ok(body) => ingest.body = body,
                Err(problem) => {
                    let remedy =
                        "write it like '{\"type\": \"t\", \"dedup_id\": \"{dedup_id}\", \"payload\": {payload}}'";
                    self.document.add(line, &key, problem, remedy);
                }
            }
        }
        if let Some(statuses) = section.statuses(self.document, "status", 200..=299) {
            ingest.statuses = Statuses::OneOf(statuses.value);
        }
        if let Some(statuses) = section.statuses(self.document, "duplicate_status", 200..=499) {
            ingest.duplicate_statuses = Statuses::OneOf(statuses.value);
        }
        if let Some(id) = self.pointer(&mut section, "id", true) {
            ingest.id = id;
        }
        if let Some(ids_match) = section.boolean(self.document, "ids_match") {
            ingest.ids_match = ids_match.value;
        }
        if let Some(Some(durability)) = self.pointer(&mut section, "durability", false) {
            ingest.durability = durability;
        }
        section.finish(self.document);
        ingest
    }

    fn routes(&mut self, top: &mut Section<'t>) -> Routes {
        let mut routes = Dialect::contract().routes;
        let Some(mut section) = top.section(self.document, "routes") else { return routes };
        let all = [
            ("inbox", None, &mut routes.inbox),
            ("event", Some("id"), &mut routes.event),
            ("ack", Some("id"), &mut routes.ack),
            ("batch", None, &mut routes.batch),
            ("webhook", None, &mut routes.webhook),
            ("metrics", None, &mut routes.metrics),
        ];
        for (name, placeholder, route) in all {
            if let Some(given) = self.route(&mut section, name, placeholder) {
                *route = given;
            }
        }
        section.finish(self.document);
        routes
    }

    fn persisted(&mut self, top: &mut Section<'t>, database: &DatabaseKind, routes: &Routes) -> Persisted {
        let section = top.section(self.document, "persisted");
        let (mut source, mut query, mut line) = ("inbox", None, 1);
        if let Some(mut section) = section {
            line = section.line();
            let sources = [("inbox", "inbox"), ("sql", "sql"), (NONE, NONE)];
            let key = section.key("query");
            let default = if section.line_of("query").is_some() { "sql" } else { "inbox" };
            let is_said = section.line_of("source").is_some();
            source = section.choice(self.document, "source", &sources).map_or(default, |source| source.value);
            query = section.text(self.document, "query");
            section.finish(self.document);
            match &query {
                Some(query) if source != "sql" && is_said => {
                    let problem = format!("goes with source = \"sql\", and this is \"{source}\"");
                    self.document.add(query.line, &key, problem, "leave it out, or change the source");
                }
                Some(query) => self.check_query(&key, query),
                None if source == "sql" => {
                    let remedy = "write query = \"SELECT id, dedup_id, payload, persisted_at FROM …\"";
                    self.document.add(line, &key, "is missing", remedy);
                }
                None => {}
            }
        }
        if source == "sql" && *database == DatabaseKind::None {
            let problem = "= \"sql\": says nothing of which database";
            self.document.add(
                line,
                "[persisted] source",
                problem,
                "say it with [database] kind, and url where it is there already",
            );
        }
        if source == "inbox" && routes.inbox.is_none() {
            let problem = "= \"inbox\": [routes] says that there is none";
            self.document.add(
                line,
                "[persisted] source",
                problem,
                "give a query with source = \"sql\", or source = \"none\"",
            );
        }
        match (source, query) {
            ("sql", query) => Persisted::Sql(query.map(|query| query.value).unwrap_or_default()),
            (NONE, _) => Persisted::None,
            _ => Persisted::Inbox,
        }
    }

    fn check_query(&mut self, key: &str, query: &Placed<String>) {
        let text = query.value.trim();
        let first = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
        if !matches!(first.as_str(), "select" | "with" | "values") {
            let problem = "does not begin with SELECT or WITH";
            self.document.add(query.line, key, problem, "write one statement that only reads");
        }
        if text.ends_with(';') {
            self.document.add(
                query.line,
                key,
                "ends with a semicolon",
                "leave it out: it becomes a part of another query",
            );
        }
    }

    fn pids(&mut self, top: &mut Section<'t>, is_started: bool, values: &[&'static str]) -> Pids {
        let default = if is_started { Pids::Child } else { Pids::None };
        let Some(mut section) = top.section(self.document, "process") else { return default };
        let kinds = [("child", "child"), ("file", "file"), ("command", "command"), (NONE, NONE)];
        let kind = section.choice(self.document, "pids", &kinds);
        let (kind, line) = kind.map_or(("child", section.line()), |kind| (kind.value, kind.line));
        let (file_key, command_key) = (section.key("file"), section.key("command"));
        let file = section.text(self.document, "file");
        let command = section.texts(self.document, "command");
        let others = [("file", file.as_ref().map(|f| f.line)), ("command", command.as_ref().map(|c| c.line))];
        for (other, line) in others {
            if let Some(line) = line.filter(|_| other != kind) {
                let problem = format!("goes with pids = \"{other}\", and this is \"{kind}\"");
                self.document.add(line, &section.key(other), problem, "leave it out, or change pids");
            }
        }
        section.finish(self.document);
        let missing = |builder: &mut Self, key: &str| {
            builder.document.add(line, key, "is missing", "write it, or leave [process] out");
            Pids::None
        };
        match kind {
            "file" => match file {
                Some(file) => Pids::File(self.filled(&file_key, file, values)),
                None => missing(self, &file_key),
            },
            "command" => match command {
                Some(Placed { value, line }) => {
                    let parts = value.into_iter();
                    Pids::Command(
                        parts.map(|value| self.filled(&command_key, Placed { value, line }, values)).collect(),
                    )
                }
                None => missing(self, &command_key),
            },
            "child" if !is_started => {
                let problem = "= \"child\": there is no [start]";
                self.document.add(line, "[process] pids", problem, "use \"file\", \"command\" or \"none\"");
                Pids::None
            }
            "child" => Pids::Child,
            _ => Pids::None,
        }
    }
}
