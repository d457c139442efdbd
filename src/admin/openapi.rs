//! The description of the API in OpenAPI 3.1, served at `/api/openapi.json`.

use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required,
    Response, ResponseBuilder, SecurityRequirement,
};

/// An empty description, to which routes add themselves.
pub(super) fn begin() -> OpenApi {
    let info = InfoBuilder::new()
        .title("scion-tracker")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The admin API. /api/v1 is that of torrust-tracker, /api/v2 is our own.",
        ))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// Adds what holds for every route: how to show a token, and the answers of the guard.
pub(super) fn complete(mut openapi: OpenApi) -> OpenApi {
    let components = openapi.components.get_or_insert_with(Components::new);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let query = ApiKey::Query(ApiKeyValue::new("token"));
    components.add_security_scheme("query", SecurityScheme::ApiKey(query));
    openapi.security = Some(vec![
        SecurityRequirement::new("bearer", [""; 0]),
        SecurityRequirement::new("query", [""; 0]),
    ]);
    for (path, item) in &mut openapi.paths.paths {
        for (operation, has_body) in operations(item) {
            complete_operation(path, operation, has_body);
        }
    }
    openapi
}

/// The operations of a path, and whether each reads a body.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let all = [
        item.get.as_mut(),
        item.put.as_mut(),
        item.post.as_mut(),
        item.delete.as_mut(),
        item.patch.as_mut(),
    ];
    all.into_iter().flatten().map(|operation| {
        let has_body = operation.request_body.is_some();
        (operation, has_body)
    })
}

/// Says of a body that may be missing that it is not null. utoipa writes `Option<T>` as T or null.
fn never_null(body: &mut RequestBody) {
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(either))) = &content.schema
            && let Some(schema) = either.items.first()
        {
            content.schema = Some(schema.clone());
        }
    }
}

fn complete_operation(path: &str, operation: &mut Operation, has_body: bool) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        never_null(body);
    }
    let mut add = |status: &str, text: &str| {
        let responses = &mut operation.responses.responses;
        let response = || RefOr::T(error(path, text));
        responses.entry(status.into()).or_insert_with(response);
    };
    for parameter in operation.parameters.iter_mut().flatten() {
        // utoipa takes a parameter with a schema of its own for optional.
        if let RefOr::T(parameter) = parameter
            && parameter.name == "target"
        {
            parameter.required = Required::True;
        }
    }
    let is_open = operation.security.is_some();
    if !is_open {
        add("401", "There is no token, or a wrong one.");
        add(
            "403",
            "The token may only read, or the request may come from a browser.",
        );
        add("429", "Too many wrong tokens came from this address.");
        add("400", "The request is wrong.");
        add(
            "503",
            "The store of the records cannot be used, or the answer took too long.",
        );
    }
    if has_body {
        add("413", "The body is longer than 1 MiB.");
        add("415", "The type of the body is wrong.");
    }
}

/// An error: text as in torrust's API, or our own.
fn error(path: &str, text: &str) -> Response {
    let (media, content) = match path.starts_with("/api/v2/") {
        true => {
            let schema = Ref::from_schema_name("Error");
            (
                "application/json",
                ContentBuilder::new().schema(Some(schema)),
            )
        }
        false => {
            let schema = ObjectBuilder::new().schema_type(Type::String).build();
            ("text/plain", ContentBuilder::new().schema(Some(schema)))
        }
    };
    ResponseBuilder::new()
        .description(text)
        .content(media, content.build())
        .build()
}

/// The description as text, made once.
#[derive(Debug, Clone)]
pub(super) struct Description(Arc<str>);

impl Description {
    pub(super) fn new(openapi: &OpenApi) -> Self {
        // It is made of texts and maps, which serde_json writes.
        Self(openapi.to_json().unwrap_or_default().into())
    }

    pub(super) fn response(&self) -> impl IntoResponse + use<> {
        ([(CONTENT_TYPE, "application/json")], self.0.to_string())
    }
}
