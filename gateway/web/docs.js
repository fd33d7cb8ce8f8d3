// The OpenAPI document, rendered by Swagger UI; requests that are tried out go to this server.
// @ts-expect-error the bundle sets it
SwaggerUIBundle({ url: 'openapi.json', dom_id: '#api', deepLinking: true, validatorUrl: null });
