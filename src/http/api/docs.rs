//! A readable page of the OpenAPI document, made once from the document itself, and a page for each error code.

use askama::Template;
use serde_json::Value as Json;
use utoipa::openapi::OpenApi;

use crate::http::problem::{CODES, Code};

/// The page.
pub fn page(document: &OpenApi) -> String {
    let json = serde_json::to_value(document).unwrap_or_default();
    let docs = Docs { groups: groups(&json), shapes: shapes(&json), codes: CODES };
    docs.render().unwrap_or_default()
}

/// What one code means.
pub fn error_page(code: &'static Code) -> String {
    ErrorDocs { code }.render().unwrap_or_default()
}

#[derive(Template)]
#[template(path = "docs.html")]
struct Docs {
    groups: Vec<Group>,
    shapes: Vec<Shape>,
    codes: &'static [Code],
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorDocs {
    code: &'static Code,
}

struct Group {
    name: String,
    about: String,
    calls: Vec<Call>,
}

struct Call {
    id: String,
    method: String,
    path: String,
    about: String,
    caller: String,
    parameters: Vec<Member>,
    request: Option<Shape>,
    answers: Vec<(String, Option<Shape>)>,
}

#[derive(Clone)]
struct Shape {
    name: String,
    about: String,
    members: Vec<Member>,
}

#[derive(Clone)]
struct Member {
    name: String,
    kind: String,
    /// The shape that it has, by name.
    of: Option<String>,
    required: bool,
    about: String,
}

fn groups(json: &Json) -> Vec<Group> {
    let tags = json["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let group = |tag: &Json| Group {
        name: text(&tag["name"]),
        about: text(&tag["description"]),
        calls: calls(json, &text(&tag["name"])),
    };
    tags.iter().map(group).filter(|group| !group.calls.is_empty()).collect()
}

fn calls(json: &Json, tag: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, item) in members(&json["paths"]) {
        for (method, call) in members(item) {
            if call["tags"].as_array().is_some_and(|tags| tags.iter().any(|t| t == tag)) {
                calls.push(one_call(json, path, method, call));
            }
        }
    }
    calls
}

fn one_call(json: &Json, path: &str, method: &str, call: &Json) -> Call {
    let content = |of: &Json| named(json, &of["content"]["application/json"]["schema"]);
    let answers = members(&call["responses"]).filter(|(status, _)| status.starts_with('2'));
    let callers = call["security"].as_array().map(Vec::as_slice).unwrap_or_default();
    let caller = |(name, scopes): (&str, &Json)| match scopes[0].as_str() {
        Some(scope) => format!("{} with {scope}", name.replace('_', " ")),
        None => name.replace('_', " "),
    };
    let callers: Vec<String> = callers.iter().flat_map(|c| members(c).map(caller)).collect();
    let parameter = |parameter: &Json| Member {
        about: format!("in the {}. {}", text(&parameter["in"]), text(&parameter["description"])),
        ..member(&text(&parameter["name"]), &parameter["schema"], parameter["required"] == true)
    };
    Call {
        id: format!("{method}-{}", path.replace(['/', '{', '}', '.'], "-")),
        method: method.to_uppercase(),
        path: path.to_owned(),
        about: [text(&call["summary"]), text(&call["description"])].join(" ").trim().to_owned(),
        caller: if callers.is_empty() { "anybody".to_owned() } else { callers.join(" or ") },
        parameters: call["parameters"].as_array().map(|all| all.iter().map(parameter).collect()).unwrap_or_default(),
        request: content(&call["requestBody"]),
        answers: answers.map(|(status, answer)| (status.to_owned(), content(answer))).collect(),
    }
}

fn shapes(json: &Json) -> Vec<Shape> {
    members(&json["components"]["schemas"]).map(|(name, schema)| shape(name, schema)).collect()
}

/// The shape that a reference names.
fn named(json: &Json, schema: &Json) -> Option<Shape> {
    let name = reference(schema)?;
    Some(shape(&name, &json["components"]["schemas"][&name]))
}

fn shape(name: &str, schema: &Json) -> Shape {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|n| n == name));
    Shape {
        name: name.to_owned(),
        about: text(&schema["description"]),
        members: members(&schema["properties"]).map(|(n, s)| member(n, s, required(n))).collect(),
    }
}

fn member(name: &str, schema: &Json, required: bool) -> Member {
    let (kind, of) = kind(schema);
    let about = match schema["description"].as_str() {
        Some(about) => about,
        None => {
            let one_of = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
            one_of.iter().find_map(|one| one["description"].as_str()).unwrap_or_default()
        }
    };
    Member { name: name.to_owned(), kind, of, required, about: about.replace('`', "") }
}

/// A type in words, and the shape that it refers to.
fn kind(schema: &Json) -> (String, Option<String>) {
    if let Some(name) = reference(schema) {
        return (String::new(), Some(name));
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema[several].as_array() {
            let found = all.iter().find(|one| one["type"] != "null").map(kind).unwrap_or_default();
            return found;
        }
    }
    let plain = match &schema["type"] {
        Json::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(" or "),
        one => text(one),
    };
    if plain.starts_with("array") {
        let (of, shape) = kind(&schema["items"]);
        return (format!("list of {of}").trim().to_owned(), shape);
    }
    match schema["format"].as_str() {
        Some("date-time") => (plain.replacen("string", "time", 1), None),
        _ => (if plain.is_empty() { "any".to_owned() } else { plain }, None),
    }
}

fn reference(schema: &Json) -> Option<String> {
    schema["$ref"].as_str()?.rsplit('/').next().map(str::to_owned)
}

fn members(of: &Json) -> impl Iterator<Item = (&str, &Json)> {
    of.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn text(of: &Json) -> String {
    of.as_str().unwrap_or_default().to_owned()
}
