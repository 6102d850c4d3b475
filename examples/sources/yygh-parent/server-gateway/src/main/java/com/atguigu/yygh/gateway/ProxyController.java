package com.atguigu.yygh.gateway;

import com.atguigu.yygh.service.Retry;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Collections;
import java.util.Locale;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.HttpStatus;
import org.springframework.http.ProblemDetail;
import org.springframework.web.bind.annotation.ExceptionHandler;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RestController;

/** Passes requests on, and repeats them while a pod is being replaced. */
@RestController
class ProxyController {

    private static final Logger log = LoggerFactory.getLogger(ProxyController.class);

    private static final Duration READ_TIMEOUT = Duration.ofSeconds(20);
    private static final int LONGEST_BODY = 2 * 1024 * 1024;

    /** What belongs to one connection, and is not passed on. */
    private static final Set<String> HOP_BY_HOP = Set.of(
            "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
            "transfer-encoding", "upgrade", "host", "content-length", "expect");

    /** What this gateway says itself, in the place of the service. */
    private static final String OWN = "access-control-";

    private final Routes routes;
    private final HttpClient http;
    private final Retry retry;

    ProxyController(Routes routes, HttpClient http, Retry retry) {
        this.routes = routes;
        this.http = http;
        this.retry = retry;
    }

    @RequestMapping({"/api/{name}", "/api/{name}/**"})
    void pass(@PathVariable String name, HttpServletRequest asked, HttpServletResponse answer)
            throws IOException, ServiceUnreachable {
        String query = asked.getQueryString() == null ? "" : "?" + asked.getQueryString();
        URI target = routes.target(name, asked.getRequestURI() + query);
        byte[] body = asked.getInputStream().readNBytes(LONGEST_BODY + 1);
        if (body.length > LONGEST_BODY) {
            answer.sendError(HttpStatus.PAYLOAD_TOO_LARGE.value());
            return;
        }
        HttpRequest request = request(target, asked, body);
        HttpResponse<byte[]> response = send(request);
        answer.setStatus(response.statusCode());
        response.headers().map().forEach((header, values) -> {
            if (passedOn(header) && !header.toLowerCase(Locale.ROOT).startsWith(OWN)) {
                // The first replaces: the release is that of the service, not of this gateway.
                answer.setHeader(header, values.get(0));
                values.stream().skip(1).forEach(value -> answer.addHeader(header, value));
            }
        });
        answer.getOutputStream().write(response.body());
    }

    @ExceptionHandler
    ProblemDetail unreachable(ServiceUnreachable failure) {
        log.warn("{}", failure.getMessage());
        return ProblemDetail.forStatusAndDetail(HttpStatus.BAD_GATEWAY, failure.getMessage());
    }

    private HttpResponse<byte[]> send(HttpRequest request) throws ServiceUnreachable {
        try {
            // The whole answer is read here, so that one that is cut off in the middle is asked for again.
            return retry.run(request.method(), () -> {
                try {
                    return http.send(request, BodyHandlers.ofByteArray());
                } catch (InterruptedException interrupted) {
                    Thread.currentThread().interrupt();
                    throw new IOException("interrupted", interrupted);
                }
            });
        } catch (IOException failure) {
            throw new ServiceUnreachable(request.uri(), failure);
        }
    }

    private static HttpRequest request(URI target, HttpServletRequest asked, byte[] body) {
        HttpRequest.Builder request = HttpRequest.newBuilder(target)
                .method(asked.getMethod(), body.length == 0 ? BodyPublishers.noBody() : BodyPublishers.ofByteArray(body))
                .timeout(READ_TIMEOUT);
        for (String header : Collections.list(asked.getHeaderNames())) {
            if (passedOn(header)) {
                Collections.list(asked.getHeaders(header)).forEach(value -> request.header(header, value));
            }
        }
        // A connection per request: none can be left over from a pod that has gone.
        return request.setHeader("Connection", "close")
                .setHeader("X-Forwarded-For", asked.getRemoteAddr())
                .build();
    }

    private static boolean passedOn(String header) {
        return !HOP_BY_HOP.contains(header.toLowerCase(Locale.ROOT));
    }

    private static class ServiceUnreachable extends Exception {

        ServiceUnreachable(URI target, IOException cause) {
            super("服务暂时无法访问: " + target.getAuthority(), cause);
        }
    }
}
