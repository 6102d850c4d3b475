package com.atguigu.yygh.statistics;

import com.atguigu.yygh.hosp.client.HospClient;
import com.atguigu.yygh.order.client.OrderClient;
import com.atguigu.yygh.service.YyghService;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Import;

/** Figures about orders. */
@SpringBootApplication
@Import({HospClient.class, OrderClient.class})
public class ServiceStatisticsApplication {

    public static void main(String[] args) {
        YyghService.run(ServiceStatisticsApplication.class, args);
    }
}
