package com.atguigu.yygh.service;

import java.net.http.HttpClient;
import java.time.Duration;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.availability.ApplicationAvailability;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.core.Ordered;
import org.springframework.core.env.Environment;
import org.springframework.web.client.RestClient;

/** What every service has: a release, its health, errors in words, and a way to call the others. */
@AutoConfiguration
class ServiceAutoConfiguration {

    @Bean
    Release release(
            @Value("${spring.application.name}") String service,
            @Value("${TAG:dev}") String version,
            @Value("${RUN:0}") String run,
            @Value("${POD_NAME:${HOSTNAME:local}}") String pod) {
        return new Release(service, version, run, pod);
    }

    @Bean
    FilterRegistrationBean<ReleaseFilter> releaseFilter(Release release) {
        FilterRegistrationBean<ReleaseFilter> registration = new FilterRegistrationBean<>(new ReleaseFilter(release));
        registration.setOrder(Ordered.HIGHEST_PRECEDENCE);
        return registration;
    }

    @Bean
    StatusController statusController(ApplicationAvailability availability, Release release) {
        return new StatusController(availability, release);
    }

    @Bean
    ApiErrors apiErrors() {
        return new ApiErrors();
    }

    @Bean
    ServiceAddresses serviceAddresses(Environment environment) {
        return new ServiceAddresses(environment);
    }

    @Bean
    Retry retry(@Value("${retry.patience:5s}") Duration patience) {
        return new Retry(patience);
    }

    @Bean
    HttpClient httpClient() {
        return HttpClient.newBuilder()
                .version(HttpClient.Version.HTTP_1_1)
                .connectTimeout(Duration.ofSeconds(2))
                .build();
    }

    @Bean
    ServiceClients serviceClients(
            ServiceAddresses addresses, HttpClient http, Retry retry, RestClient.Builder builder) {
        return new ServiceClients(addresses, http, retry, builder);
    }
}
