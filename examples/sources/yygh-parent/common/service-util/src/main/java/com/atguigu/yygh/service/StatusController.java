package com.atguigu.yygh.service;

import java.util.Map;
import org.springframework.boot.availability.ApplicationAvailability;
import org.springframework.boot.availability.LivenessState;
import org.springframework.boot.availability.ReadinessState;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** Health at the usual actuator paths, without the start-up time of the actuator; and the release. */
@RestController
class StatusController {

    private final ApplicationAvailability availability;
    private final Release release;

    StatusController(ApplicationAvailability availability, Release release) {
        this.availability = availability;
        this.release = release;
    }

    @GetMapping({"/actuator/health", "/actuator/health/readiness"})
    ResponseEntity<Map<String, String>> readiness() {
        return health(availability.getReadinessState() == ReadinessState.ACCEPTING_TRAFFIC);
    }

    @GetMapping("/actuator/health/liveness")
    ResponseEntity<Map<String, String>> liveness() {
        return health(availability.getLivenessState() == LivenessState.CORRECT);
    }

    @GetMapping("/version")
    Release version() {
        return release;
    }

    private static ResponseEntity<Map<String, String>> health(boolean up) {
        return ResponseEntity.status(up ? 200 : 503).body(Map.of("status", up ? "UP" : "OUT_OF_SERVICE"));
    }
}
