package com.atguigu.yygh.task;

import com.atguigu.yygh.order.client.OrderClient;
import com.atguigu.yygh.service.YyghService;
import com.atguigu.yygh.user.client.UserClient;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Import;
import org.springframework.scheduling.annotation.EnableScheduling;

/** Work that is done at fixed times. */
@SpringBootApplication
@EnableScheduling
@Import({OrderClient.class, UserClient.class})
public class ServiceTaskApplication {

    public static void main(String[] args) {
        YyghService.run(ServiceTaskApplication.class, args);
    }
}
