package com.atguigu.yygh.service;

import java.net.http.HttpClient;
import java.time.Duration;
import org.springframework.http.HttpHeaders;
import org.springframework.http.client.JdkClientHttpRequestFactory;
import org.springframework.web.client.RestClient;
import org.springframework.web.client.support.RestClientAdapter;
import org.springframework.web.service.invoker.HttpServiceProxyFactory;

/** Turns a contract (an interface of {@code @HttpExchange} methods) into a client of the service that keeps it. */
public class ServiceClients {

    private static final Duration READ_TIMEOUT = Duration.ofSeconds(10);

    private final ServiceAddresses addresses;
    private final HttpClient http;
    private final Retry retry;
    private final RestClient.Builder builder;

    ServiceClients(ServiceAddresses addresses, HttpClient http, Retry retry, RestClient.Builder builder) {
        this.addresses = addresses;
        this.http = http;
        this.retry = retry;
        this.builder = builder;
    }

    public <T> T create(String service, Class<T> contract) {
        JdkClientHttpRequestFactory requests = new JdkClientHttpRequestFactory(http);
        requests.setReadTimeout(READ_TIMEOUT);
        RestClient client = builder.clone()
                .baseUrl(addresses.of(service))
                .requestFactory(requests)
                // A connection per call: none can be left over from a pod that has gone.
                .defaultHeader(HttpHeaders.CONNECTION, "close")
                .requestInterceptor((request, body, execution) ->
                        retry.run(request.getMethod().name(), () -> execution.execute(request, body)))
                .build();
        return HttpServiceProxyFactory.builderFor(RestClientAdapter.create(client)).build().createClient(contract);
    }
}
