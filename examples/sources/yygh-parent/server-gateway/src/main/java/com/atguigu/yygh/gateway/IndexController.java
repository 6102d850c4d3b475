package com.atguigu.yygh.gateway;

import com.atguigu.yygh.gateway.Routes.Route;
import com.atguigu.yygh.service.Release;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** Lists the routes and what runs behind each. */
@RestController
class IndexController {

    private static final Duration TIMEOUT = Duration.ofSeconds(5);

    private final Release release;
    private final Routes routes;
    private final HttpClient http;
    private final ObjectMapper json;

    IndexController(Release release, Routes routes, HttpClient http, ObjectMapper json) {
        this.release = release;
        this.routes = routes;
        this.http = http;
        this.json = json;
    }

    /** A service that does not answer has no version. */
    record Entry(String path, String service, boolean up, String version, String run, String pod) {
    }

    record Index(String title, Release gateway, List<Entry> routes) {
    }

    @GetMapping({"/", "/api"})
    Index index() {
        List<CompletableFuture<Entry>> entries = routes.all().stream().map(this::ask).toList();
        return new Index("尚医通 预约挂号平台", release, entries.stream().map(CompletableFuture::join).toList());
    }

    private CompletableFuture<Entry> ask(Route route) {
        HttpRequest request = HttpRequest.newBuilder(URI.create(routes.address(route) + "/version"))
                .timeout(TIMEOUT)
                .header("Connection", "close")
                .build();
        return http.sendAsync(request, BodyHandlers.ofByteArray())
                .thenApply(response -> up(route, response))
                .exceptionally(failure -> new Entry(route.path(), route.service(), false, null, null, null));
    }

    private Entry up(Route route, HttpResponse<byte[]> response) {
        try {
            Release running = json.readValue(response.body(), Release.class);
            return new Entry(route.path(), route.service(), true, running.version(), running.run(), running.pod());
        } catch (IOException notARelease) {
            return new Entry(route.path(), route.service(), false, null, null, null);
        }
    }
}
