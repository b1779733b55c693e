//! What is sent: requests made bad in every way that we know of, from calls that would be good.

use std::fmt::Write as _;

use crate::support::{Value, json};

/// One request to the byte.
pub struct Bad {
    /// In which way, for the report.
    pub what: String,
    pub bytes: Vec<u8>,
    /// Not bad but strange: it may be answered well, so long as it is answered.
    pub is_odd: bool,
    /// It breaks off here.
    pub ends: bool,
}

/// A call that is good but for what is made of it.
#[derive(Clone)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub token: String,
    /// `null` where the call takes none.
    pub body: Value,
}

/// A small generator of its own, so that a run can be repeated.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

impl Call {
    /// The request line and headers, without the empty line.
    fn head(&self, path: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
        let mut head = format!("{} ", self.method).into_bytes();
        head.extend_from_slice(path);
        head.extend_from_slice(b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "authorization") && !self.token.is_empty() {
            head.extend_from_slice(format!("authorization: Bearer {}\r\n", self.token).as_bytes());
        }
        for (name, value) in headers {
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        head
    }

    fn whole(&self, path: &[u8], headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let length = format!("content-length: {}\r\n\r\n", body.len());
        [&self.head(path, headers), length.as_bytes(), body].concat()
    }

    /// With this body, called JSON.
    pub fn json(&self, body: &[u8]) -> Vec<u8> {
        self.whole(self.path.as_bytes(), &[("content-type", "application/json")], body)
    }

    fn with(&self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut headers = headers.to_vec();
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            headers.push(("content-type", "application/json"));
        }
        self.whole(self.path.as_bytes(), &headers, self.text().as_bytes())
    }

    fn text(&self) -> String {
        if self.body.is_null() { String::new() } else { self.body.to_string() }
    }
}

/// Gathers what is made.
pub struct Corpus {
    pub all: Vec<Bad>,
    what: String,
}

impl Corpus {
    pub fn new() -> Corpus {
        Corpus { all: Vec::new(), what: String::new() }
    }

    fn about(&mut self, call: &Call) {
        self.what = format!("{} {}", call.method, call.path);
    }

    fn add(&mut self, how: &str, bytes: Vec<u8>) {
        self.push(how, bytes, false, false);
    }

    fn odd(&mut self, how: &str, bytes: Vec<u8>) {
        self.push(how, bytes, true, false);
    }

    fn push(&mut self, how: &str, bytes: Vec<u8>, is_odd: bool, ends: bool) {
        self.all.push(Bad { what: format!("{}: {how}", self.what), bytes, is_odd, ends });
    }
}

const CONTROL: [&str; 7] = ["\0", "a\0b", "\u{1}", "a\r\nSet-Cookie: x=1", "a\nb", "\u{7f}", "a\u{85}b"];
/// Strange and harmless where a name may be anything.
const STRANGE: [&str; 9] = [
    "\u{202e}nib.exe",
    "a\u{200b}\u{200d}\u{2060}b",
    "\u{feff}",
    "\u{2028}",
    "%00",
    "../../etc/passwd",
    "'; drop table users; --",
    "<script>alert(1)</script>",
    "\u{1d54f}\u{0301}\u{0301}\u{0301}",
];
const NAMES: [&str; 12] = [
    "__proto__",
    "constructor",
    "$where",
    "",
    " ",
    "\0",
    "a\r\nb",
    "user_id ",
    "User_Id",
    "\u{202e}x",
    "<img src=x>",
    "code[]",
];

/// Bodies that are no object, or more than one, or no JSON.
fn no_bodies() -> Vec<Vec<u8>> {
    let texts = [
        "",
        " ",
        "null",
        "true",
        "0",
        "-0",
        "1e999",
        "\"x\"",
        "[]",
        "[{}]",
        "[null]",
        "{",
        "}",
        "{}{}",
        "{} x",
        "{,}",
        "{\"a\"}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":0x1}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\u00\"}",
        "{\"a\":tru}",
        "{\"a\":1,}",
        "{/**/}",
        "// x\n{}",
        "{\"\\ud800\":1}",
        "\u{feff}{}",
        "user_id=ann&code=1",
        "<a/>",
        "--x\r\ncontent-disposition: form-data; name=\"code\"\r\n\r\n1\r\n--x--",
        "a\0b",
        "{\"a\":\"\n\"}",
        "{\"\0\":1}",
    ];
    let mut bodies: Vec<Vec<u8>> = texts.iter().map(|t| t.as_bytes().to_vec()).collect();
    for depth in [200, 5_000, 60_000] {
        bodies.push("[".repeat(depth).into_bytes());
        bodies.push("{\"a\":".repeat(depth / 3).into_bytes());
        bodies.push(format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes());
    }
    bodies.push(format!("{{\"a\":{}}}", "9".repeat(60_000)).into_bytes());
    bodies.push(format!("{{{}\"a\":1}}", "\"a\":1,".repeat(20_000)).into_bytes());
    bodies.push("{}".encode_utf16().flat_map(u16::to_le_bytes).collect());
    bodies.push([0xff, 0xfe].into_iter().chain("{}".encode_utf16().flat_map(u16::to_le_bytes)).collect());
    bodies.push(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    bodies.push(vec![0xa1, 0x61, b'a', 0x01]);
    bodies.push(vec![b' '; 200_000]);
    bodies.push(format!("{{\"a\":\"{}\"}}", "x".repeat(200_000)).into_bytes());
    bodies
}

impl Corpus {
    /// Every way to spoil the body of a call. `shut` are the members that refuse strange text too.
    pub fn bodies(&mut self, call: &Call, dice: &mut Dice) {
        self.about(call);
        let whole = call.text();
        for (n, body) in no_bodies().into_iter().enumerate() {
            // Nothing at all is a good body where every member may be left out.
            let nothing = body.iter().all(u8::is_ascii_whitespace) && body.is_empty();
            self.push(&format!("body {n}"), call.json(&body), nothing, false);
        }
        let types = [
            "text/plain",
            "text/json",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/cbor",
            "application/xml",
            "json",
            "/",
            "application/",
            "application/json2",
            "application/json+x",
            "*/*",
            "application/problem+json",
            "image/png",
            "application/octet-stream",
            "application/json, text/plain",
            "\"application/json\"",
        ];
        for kind in types {
            let body = if whole.is_empty() { "{}" } else { &whole };
            let bytes = call.whole(call.path.as_bytes(), &[("content-type", kind)], body.as_bytes());
            self.add(&format!("content type {kind}"), bytes);
        }
        if call.body.is_null() {
            return;
        }
        for kinds in [["application/json", "text/plain"], ["text/plain", "application/json"]] {
            let headers = kinds.map(|kind| ("content-type", kind));
            self.add("two content types", call.whole(call.path.as_bytes(), &headers, whole.as_bytes()));
        }
        for end in 1..whole.len() {
            if whole.is_char_boundary(end) {
                self.add(&format!("cut at {end}"), call.json(&whole.as_bytes()[..end]));
            }
        }
        for _ in 0..25 {
            let mut bytes = whole.clone().into_bytes();
            for _ in 0..=dice.below(3) {
                let place = dice.below(bytes.len());
                bytes[place] = dice.below(256) as u8;
            }
            self.odd("noise", call.json(&bytes));
        }
        for pointer in pointers(&call.body) {
            self.member(call, &pointer);
        }
    }

    fn member(&mut self, call: &Call, pointer: &str) {
        let old = call.body.pointer(pointer).expect("it stands there").clone();
        let put = |new: Value| {
            let mut body = call.body.clone();
            *body.pointer_mut(pointer).expect("it stands there") = new;
            body.to_string()
        };
        let is_free = pointer.starts_with("/client/") || pointer.starts_with("/credential/");
        let wrong = [
            json!(true),
            json!(0),
            json!(-1),
            json!(1.5),
            json!(9_007_199_254_740_993_i64),
            json!("x"),
            json!([]),
            json!([[]]),
            json!(["1", "2"]),
            json!([null]),
            json!({"$ne": 1}),
            json!({"a": {"b": []}}),
        ];
        for new in wrong {
            let same = std::mem::discriminant(&new) == std::mem::discriminant(&old);
            // An empty list of details is one, and an age of nothing as well.
            if pointer.is_empty() || (same && (old.is_string() || old.is_boolean() || old.is_i64() || old.is_array())) {
                continue;
            }
            self.add(&format!("{pointer} is {new}"), call.json(put(new).as_bytes()));
        }
        if old.is_i64() {
            for number in [json!(-1), json!(1.5), json!(1e300), json!(i64::MAX), json!(i64::MIN), json!(u64::MAX)] {
                self.add(&format!("{pointer} is {number}"), call.json(put(number).as_bytes()));
            }
        }
        if let Value::String(_) = old {
            for new in CONTROL {
                self.push(&format!("{pointer} is {new:?}"), call.json(put(json!(new)).as_bytes()), is_free, false);
            }
            for new in ["x", "\u{e9}"] {
                let long = put(json!(new.repeat(65_536 / new.len())));
                self.push(&format!("{pointer} is long"), call.json(long.as_bytes()), is_free, false);
            }
            for new in STRANGE {
                self.odd(&format!("{pointer} is {new:?}"), call.json(put(json!(new)).as_bytes()));
            }
            self.push(&format!("{pointer} is empty"), call.json(put(json!("")).as_bytes()), is_free, false);
            let marked = put(json!("@@"));
            let place = marked.find("@@").expect("it was put there");
            for bytes in [
                &b"\xff"[..],
                b"\xc0\xaf",
                b"\xed\xa0\x80",
                b"\xf5\x80\x80\x80",
                b"\xe2\x28\xa1",
                b"\\ud800",
                b"\\udc00\\ud800",
                b"\n",
                b"\0",
            ] {
                let spoilt = [&marked.as_bytes()[..place], bytes, &marked.as_bytes()[place + 2..]].concat();
                self.add(&format!("{pointer} is {bytes:?}"), call.json(&spoilt));
            }
        }
        if let Value::Object(members) = &old {
            let list: Vec<Value> = members.values().cloned().collect();
            if !pointer.is_empty() {
                self.add(&format!("{pointer} as a list"), call.json(put(json!(list)).as_bytes()));
            }
            for name in NAMES {
                let mut more = members.clone();
                more.insert(name.to_owned(), json!(1));
                let body = put(Value::Object(more));
                self.add(&format!("{pointer} with {name:?}"), call.json(body.as_bytes()));
            }
            let mut more = members.clone();
            more.insert("x".repeat(65_536), json!(1));
            self.add(&format!("{pointer} with a long name"), call.json(put(Value::Object(more)).as_bytes()));
            for (name, value) in members {
                let mut text = String::from("{");
                for (n, v) in members {
                    let _ = write!(text, "{}:{v},", json!(n));
                }
                let _ = write!(text, "{}:{value}}}", json!(name));
                let marker = put(json!("@@@"));
                self.add(&format!("{pointer}/{name} twice"), call.json(marker.replace("\"@@@\"", &text).as_bytes()));
            }
        }
        let deep = put(json!("@@@"));
        for depth in [100, 127, 129, 20_000] {
            let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            self.add(&format!("{pointer} is {depth} deep"), call.json(deep.replace("\"@@@\"", &nested).as_bytes()));
        }
    }

    /// Every way to spoil what stands before the body.
    pub fn heads(&mut self, call: &Call) {
        self.about(call);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "FOO", "get", "post"] {
            if method != call.method {
                let other = Call { method: method.to_owned(), ..call.clone() };
                // It may be another call of the same path.
                self.push(
                    &format!("method {method}"),
                    other.with(&[]),
                    matches!(method, "GET" | "PUT" | "PATCH" | "DELETE" | "POST"),
                    false,
                );
            }
        }
        for method in [
            "M".repeat(5_000),
            "G\0T".to_owned(),
            "".to_owned(),
            "GET GET".to_owned(),
            "(".to_owned(),
            "\u{e9}".to_owned(),
        ] {
            self.add(&format!("method {method:.9}"), Call { method, ..call.clone() }.with(&[]));
        }
        if call.token.is_empty() {
            return;
        }
        let key = call.token.as_str();
        let tokens = [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            key.to_owned(),
            format!("Basic {key}"),
            format!("Bearer {key}x"),
            format!("Bearer {}", &key[1..]),
            format!("Bearer {}", key.to_uppercase()),
            format!("Bearer {key} {key}"),
            format!("Bearer {key},"),
            "Bearer sk_live_".to_owned(),
            "Bearer sk_live_\u{e9}".to_owned(),
            format!("Bearer sk_live_{}", "A".repeat(43)),
            "Bearer ct_".to_owned(),
            "Bearer ct_.".to_owned(),
            "Bearer ct_AAAA.AAAA".to_owned(),
            format!("Bearer ct_{}.{}", "A".repeat(30), "A".repeat(43)),
            "Bearer st_x".to_owned(),
            "Bearer null".to_owned(),
            "Bearer ../..".to_owned(),
            format!("Bearer {}", "a".repeat(8_000)),
            format!("Bearer sk_live_{}", "%00".repeat(9)),
            "Bearer eyJhbGciOiJub25lIn0.e30.".to_owned(),
            format!("Bearer ct_{}", "=".repeat(64)),
        ];
        for token in tokens {
            self.add(&format!("authorization {token:.30}"), call.with(&[("authorization", &token)]));
        }
        let bearer = format!("Bearer {key}");
        self.add("two keys", call.with(&[("authorization", &bearer), ("authorization", &bearer)]));
        let mut raw = call.head(call.path.as_bytes(), &[("authorization", "@@")]);
        let place = raw.windows(2).position(|w| w == b"@@").expect("it was put there");
        raw.splice(place..place + 2, *b"Bearer sk_live_\xff\xfe");
        self.add("a key that is no text", [&raw[..], b"\r\n"].concat());
        if call.method == "POST" {
            for key in ["", " ", "a b", "\u{e9}", &"k".repeat(256), &"k".repeat(9_000), "a\tb"] {
                self.add(&format!("idempotency key {key:.9}"), call.with(&[("idempotency-key", key)]));
            }
            self.add("two idempotency keys", call.with(&[("idempotency-key", "a"), ("idempotency-key", "b")]));
        }
        let text = call.text();
        let length = text.len();
        let head = call.head(call.path.as_bytes(), &[("content-type", "application/json")]);
        let raw = |more: &str| [&head[..], more.as_bytes()].concat();
        self.add(
            "two lengths",
            raw(&format!("content-length: {length}\r\ncontent-length: {}\r\n\r\n{text}", length + 1)),
        );
        for odd in ["-1", "+1", "0x5", "1e1", "99999999999999999999999", "1 2", "a", ""] {
            self.push(
                &format!("length {odd}"),
                raw(&format!("content-length: {odd}\r\n\r\n{text}")),
                odd.is_empty(),
                true,
            );
        }
        for coding in ["chunked, chunked", "gzip", "identity", "xchunked", "chunked, gzip", "\u{b}chunked", "chunked;x"]
        {
            self.push(
                &format!("coding {coding}"),
                raw(&format!("transfer-encoding: {coding}\r\n\r\n{text}")),
                coding == "chunked, chunked",
                true,
            );
        }
        for chunks in [
            "x\r\n",
            "-1\r\n",
            "5\r\nab\r\n0\r\n\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
            "7fffffffffffffff\r\na",
            "2\r\n{}X\r\n0\r\n\r\n",
            "2;\r\n{",
            "0x2\r\n{}\r\n0\r\n\r\n",
            " 2\r\n{\r\r",
            "2\n{}\n0\n\n",
            "\r\n\r\n",
        ] {
            self.push(
                &format!("chunks {chunks:?}"),
                raw(&format!("transfer-encoding: chunked\r\n\r\n{chunks}")),
                !call.takes_members(),
                true,
            );
        }
        let extended = format!("2;{}\r\n{{", "e".repeat(100_000));
        self.push(
            "a long extension",
            raw(&format!("transfer-encoding: chunked\r\n\r\n{extended}")),
            !call.takes_members(),
            true,
        );
        let both = format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n0\r\n\r\n{text}");
        self.push("length and chunks", raw(&both), !call.takes_members(), true);
        self.push(
            "a large length",
            raw(&format!("content-length: 10000000\r\n\r\n{}", "x".repeat(300_000))),
            !call.takes_body(),
            true,
        );
        for header in [
            "a b: c",
            ": x",
            "x",
            "x : y",
            "\0: x",
            "x: \0",
            "x: a\x7fb",
            "\u{e9}: x",
            " folded: x",
            "x: a\r\n b",
            "x:\ry",
        ] {
            let is_odd = header == "x: a\r\n b";
            self.push(
                &format!("header {header:?}"),
                raw(&format!("{header}\r\ncontent-length: {length}\r\n\r\n{text}")),
                is_odd,
                true,
            );
        }
        for count in [101, 1_000, 20_000] {
            let many: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
            self.push(
                &format!("{count} headers"),
                raw(&format!("{many}content-length: {length}\r\n\r\n{text}")),
                false,
                true,
            );
        }
        self.push(
            "a long header",
            raw(&format!("x: {}\r\ncontent-length: {length}\r\n\r\n{text}", "y".repeat(300_000))),
            false,
            true,
        );
    }

    /// Parts of a path and of a query that nothing is called by.
    pub fn paths(&mut self, call: &Call, template: &str, is_list: bool) {
        self.about(call);
        let parts: Vec<&str> = template.split('/').collect();
        let hostile: [&[u8]; 16] = [
            b"%00",
            b"a%00b",
            b"%0a",
            b"%0d%0aX-A:%20b",
            b"%7f",
            b"%c2%85",
            b"%ff",
            b"%c0%af",
            b"%ed%a0%80",
            b"\xff",
            b"\x01",
            b"%01",
            b"%1b%5b2J",
            b"%f5%80%80%80",
            b"%e2%28",
            b"%c2",
        ];
        let filled: Vec<&str> = call.path.split('?').next().expect("a path").split('/').collect();
        for (n, part) in parts.iter().enumerate().filter(|(_, p)| p.starts_with('{')) {
            let put = |value: &[u8]| {
                let mut path = filled.iter().map(|p| p.as_bytes().to_vec()).collect::<Vec<_>>();
                path[n] = value.to_vec();
                call.whole(&path.join(&b'/'), &[("content-type", "application/json")], call.text().as_bytes())
            };
            for value in hostile {
                self.add(&format!("{part} is {}", value.escape_ascii()), put(value));
            }
            self.add(&format!("{part} is long"), put(&vec![b'a'; 256]));
            self.add(&format!("{part} is longer"), put(&vec![b'a'; 30_000]));
            self.add(&format!("{part} is longest"), put(&vec![b'a'; 70_000]));
            if *part == "{user_id}" {
                continue;
            }
            let old = filled[n];
            let (kind, rest) = old.split_once('_').unwrap_or(("", old));
            for id in [
                String::new(),
                "x".to_owned(),
                rest.to_owned(),
                format!("{kind}_"),
                format!("{kind}_{}", "0".repeat(32)),
                format!("{kind}_{}", rest.to_uppercase()),
                format!("{old}0"),
                old[..old.len() - 1].to_owned(),
                format!("rp_{rest}"),
                format!("fac{kind}_{rest}"),
                format!("{old}%20"),
                format!("%20{old}"),
                format!("{kind}_{}", "g".repeat(32)),
                format!("{kind}_{}", "f".repeat(32)),
                "..".to_owned(),
                "%2e%2e%2f".to_owned(),
                format!("{old};a=b"),
                format!("{old}%00"),
                format!("{old}%2f"),
                "*".to_owned(),
                "%25".to_owned(),
                "1%20or%201=1".to_owned(),
            ] {
                self.add(&format!("{part} is {id:.40}"), put(id.as_bytes()));
            }
        }
        if !is_list {
            return;
        }
        let cursors = [
            "x",
            "%00",
            "%ff",
            "ses_",
            "fac_",
            "chl_00000000000070008000000000000000",
            "ses_%00",
            "fac_zzzz",
            "MQ==",
            "%7B%22id%22%3A1%7D",
            "'",
            "-1",
            "null",
            "..",
            "%0d%0a",
            "ses_00000000000070008000000000000000'--",
            "fac_00000000000070008000000000000000%20",
            "%E2%80%AE",
        ];
        let mut queries: Vec<String> = cursors.iter().map(|c| format!("cursor={c}")).collect();
        queries.push(format!("cursor={}", "a".repeat(30_000)));
        for limit in
            ["", "0", "101", "-1", "1.5", "1e1", "NaN", "99999999999999999999", "%00", "1%00", "x", "0x1", "%EF%BC%91"]
        {
            queries.push(format!("limit={limit}"));
        }
        for query in [
            "limits=1",
            "limit[]=1",
            "a",
            "%00",
            "limit=1&limit=0",
            "offset=1",
            "cursor=x&cursor=y",
            "%ff=%ff",
            "order=id%20desc",
            "type=%00",
            "type=A",
            "user_id=",
            "user_id=%00",
            "after=x",
            "after=2026-13-01T00:00:00Z",
            "after=%00",
            "before=1",
            "before=99999999999999-01-01T00:00:00Z",
        ] {
            queries.push(query.to_owned());
        }
        for query in queries {
            let path = format!("{}?{query}", call.path);
            self.add(&format!("?{query:.40}"), call.whole(path.as_bytes(), &[], b""));
        }
    }

    /// Requests that are none, to nobody in particular.
    pub fn lines(&mut self) {
        self.what = "line".to_owned();
        let h = "host: localhost\r\nconnection: close\r\n\r\n";
        for line in [
            "",
            " ",
            "\0",
            "GET",
            "GET /livez",
            "GET  /livez HTTP/1.1",
            "GET /livez HTTP/1.1 x",
            "GET /livez HTTP/9.9",
            "GET /livez HTTP/1",
            "GET /livez http/1.1",
            "GET /livez HTTQ/1.1",
            "GET /livez HTTP/3.0",
            "GET livez HTTP/1.1",
            "GET /liv\0ez HTTP/1.1",
            "GET /liv\tez HTTP/1.1",
            "GET /\u{7f} HTTP/1.1",
            "GET http:// HTTP/1.1",
            "GET http://[::1 HTTP/1.1",
            "GET //\\x HTTP/1.1",
            "CONNECT localhost:80 HTTP/1.1",
            "CONNECT /x HTTP/1.1",
            "GET * HTTP/1.1",
            "\u{16}\u{3}\u{1}\u{2}",
            "SSH-2.0-x",
            "EHLO x",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2",
            "{}",
            "GET /%zz HTTP/1.1",
            "GET /assets/%2e%2e/x HTTP/1.1",
            "GET /assets/../../Cargo.toml HTTP/1.1",
            "GET /errors/%00 HTTP/1.1",
            "GET /errors/%ff HTTP/1.1",
            "GET /docs/.. HTTP/1.1",
            "GET /v1 HTTP/1.1",
            "GET /.env HTTP/1.1",
            "GET /dev/inbox HTTP/1.1",
            "GET /dev/gallery HTTP/1.1",
            "GET /demo HTTP/1.1",
            "POST / HTTP/1.1",
            "GET /challenge/ HTTP/1.1",
            "GET /portal/%00 HTTP/1.1",
        ] {
            self.push(&format!("{line:?}"), format!("{line}\r\n{h}").into_bytes(), false, true);
        }
        self.push("a long line", format!("GET /{} HTTP/1.1\r\n{h}", "a".repeat(500_000)).into_bytes(), false, true);
        self.push("a long word", vec![b'A'; 1_000_000], false, true);
        self.push("zeros", vec![0; 100_000], false, true);
        self.push("line ends", b"\r\n".repeat(50_000), false, true);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(10_000);
        self.push("HTTP/2", preface.to_vec(), false, true);
        self.push("a flood of HTTP/2", [&preface[..], &settings].concat(), false, true);
        let upgrade = "GET /v1/nothing HTTP/1.1\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nconnection: close, upgrade\r\nhost: x\r\n\r\n";
        self.add("h2c", upgrade.as_bytes().to_vec());
        for end in 1..60 {
            let request = "POST /v1/challenges HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n";
            self.push(&format!("breaks off at {end}"), request.as_bytes()[..end].to_vec(), false, true);
        }
    }

    /// Forms and calls of pages, of browsers that hold no cookie or a false one, and of one that holds the right one.
    pub fn pages(&mut self, path: &str, cookie: Option<&str>, guard: &str) {
        let call = Call { method: "POST".to_owned(), path: path.to_owned(), token: String::new(), body: Value::Null };
        self.about(&call);
        let form = ("content-type", "application/x-www-form-urlencoded");
        let post = |headers: &[(&str, &str)], body: &[u8]| call.whole(path.as_bytes(), headers, body);
        if let Some(cookie) = cookie.filter(|_| path.ends_with("/options") || path.ends_with("/credential")) {
            let headers = [("content-type", "application/json"), ("cookie", cookie), ("form-guard", guard)];
            for (n, body) in no_bodies().into_iter().enumerate() {
                self.odd(&format!("body {n}"), post(&headers, &body));
            }
        } else if let Some(cookie) = cookie {
            let deeds = ["answer", "send", "cancel", "number", "leave", "confirm", "make", "x", ""];
            for field in
                ["code", "codes", "name", "number", "country", "method", "factor", "saved", "do", "token", "probe"]
            {
                for value in [
                    "%00",
                    "a%00b",
                    "%ff",
                    "%0d%0aX:1",
                    "%ed%a0%80",
                    "%E2%80%AE",
                    "",
                    "%",
                    "%zz",
                    "123456",
                    &"x".repeat(65_000),
                    "%F0%9D%95%8F",
                ] {
                    let deed = deeds[(field.len() + value.len()) % deeds.len()];
                    let body = format!("guard={guard}&do={deed}&{field}={value}");
                    self.odd(&format!("form {field}={value:.12}"), post(&[form, ("cookie", cookie)], body.as_bytes()));
                    let body = format!("guard={guard}x&do={deed}&{field}={value}");
                    self.odd(
                        &format!("forged form {field}={value:.12}"),
                        post(&[form, ("cookie", cookie)], body.as_bytes()),
                    );
                }
            }
        }
        let name = path.split('/').nth(2).unwrap_or_default();
        for value in ["", "x", "%00", "\u{e9}", &"a".repeat(43), &"a".repeat(9_000), "\"", ";;;=;", "a,b"] {
            let cookie = format!("cs_{name}={value}");
            self.add(&format!("cookie {value:.9}"), post(&[form, ("cookie", &cookie)], b"do=answer&code=123456"));
            let headers = [("content-type", "application/json"), ("cookie", &cookie), ("form-guard", value)];
            self.add(&format!("call with {value:.9}"), post(&headers, b"{}"));
        }
        self.add("from elsewhere", post(&[form, ("origin", "https://evil.example")], b"do=answer"));
        self.add("of null", post(&[form, ("origin", "null")], b"do=answer"));
        for body in [&b"token=%00"[..], b"token=%ff", b"token", b"=", b"&&&", b"\xff\xfe", b"token=a&token=b", b"\0"] {
            self.add(&format!("form {}", body.escape_ascii()), post(&[form], body));
        }
        self.add("a large form", post(&[form], &vec![b'a'; 300_000]));
    }
}

impl Call {
    /// A body is read at all.
    pub fn takes_body(&self) -> bool {
        matches!(self.method.as_str(), "POST" | "PUT" | "PATCH")
    }

    /// A body must be there.
    fn takes_members(&self) -> bool {
        self.takes_body() && !self.body.is_null()
    }
}

/// Every place in a value, the whole first.
fn pointers(value: &Value) -> Vec<String> {
    let mut all = vec![String::new()];
    let below: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, v)| (name.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, v)| (n.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in below {
        all.extend(pointers(value).into_iter().map(|rest| format!("/{name}{rest}")));
    }
    all
}
