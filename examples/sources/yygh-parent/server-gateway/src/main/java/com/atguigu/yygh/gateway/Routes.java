package com.atguigu.yygh.gateway;

import com.atguigu.yygh.common.YyghException;
import com.atguigu.yygh.service.ServiceAddresses;
import java.net.URI;
import java.util.List;
import org.springframework.stereotype.Component;

/** Which service answers which paths. */
@Component
class Routes {

    private static final List<Route> ALL = List.of(
            new Route("cmn", "service-cmn"),
            new Route("hosp", "service-hosp"),
            new Route("manage", "hospital-manage"),
            new Route("order", "service-order"),
            new Route("oss", "service-oss"),
            new Route("sms", "service-sms"),
            new Route("statistics", "service-statistics"),
            new Route("task", "service-task"),
            new Route("user", "service-user"));

    private final ServiceAddresses addresses;

    Routes(ServiceAddresses addresses) {
        this.addresses = addresses;
    }

    record Route(String name, String service) {

        String path() {
            return "/api/" + name + "/**";
        }
    }

    List<Route> all() {
        return ALL;
    }

    URI address(Route route) {
        return addresses.of(route.service());
    }

    URI target(String name, String pathAndQuery) {
        Route route = ALL.stream()
                .filter(candidate -> candidate.name().equals(name))
                .findFirst()
                .orElseThrow(() -> YyghException.notFound("路由", "/api/" + name));
        return URI.create(address(route) + pathAndQuery);
    }
}
