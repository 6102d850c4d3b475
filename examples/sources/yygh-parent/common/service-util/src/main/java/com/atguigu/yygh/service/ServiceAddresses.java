package com.atguigu.yygh.service;

import java.net.URI;
import org.springframework.core.env.Environment;

/**
 * Where the other services are: by cluster DNS name ({@code http://service-hosp.his:8080}), unless an address is
 * given ({@code SERVICE_HOSP_URL}). The namespace is {@code NAMESPACE}.
 */
public class ServiceAddresses {

    private final Environment environment;

    public ServiceAddresses(Environment environment) {
        this.environment = environment;
    }

    public URI of(String service) {
        String given = environment.getProperty(service + ".url");
        if (given != null) {
            return URI.create(given);
        }
        String namespace = environment.getProperty("namespace", "his");
        return URI.create("http://" + service + "." + namespace + ":8080");
    }
}
